#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"

#include <pcre2.h>

#include <nlohmann/json.hpp>

#include "tandem/error.h"
#include "tokenizer/regex_translation.h"
#include "tokenizer/utf8.h"

namespace tandem {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
// Steps of one match attempt. The patterns of real tokenizers need a few per character of a word.
constexpr uint32_t kMatchLimit = 1'000'000;
constexpr uint32_t kHeapLimitKiB = 1 << 16;

struct FreeCompileContext {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};
struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string pcre2_message(int error) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(error, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

pcre2_code* compile(std::string_view pattern, int& error, size_t& offset) {
  const std::unique_ptr<pcre2_compile_context, FreeCompileContext> context(
      pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_bsr(context.get(), PCRE2_BSR_UNICODE);
  pcre2_set_max_pattern_length(context.get(), kMaxPatternBytes);
  // Auto-possessification in PCRE2 10.42 loses matches: \p{N}+(?:a|b)?+\d does not find "10".
  return pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_POSSESS,
      &error, &offset, context.get());
}

bool is_script(std::string_view name) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = compile("\\p{sc:" + std::string(name) + "}", error, offset);
  pcre2_code_free(code);
  return code != nullptr;
}

}  // namespace

void Regex::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void Regex::FreeContext::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}

Regex::Regex(std::string_view pattern) : pattern_(pattern) {
  if (pattern.size() > kMaxPatternBytes) throw RegexError("the pattern is too long");
  const std::string translated = translate_oniguruma(pattern, is_script);
  int error = 0;
  size_t offset = 0;
  code_.reset(compile(translated, error, offset));
  if (!code_) {
    throw RegexError("regex " + quote(pattern) + ": " + pcre2_message(error) + " (at " +
                     quote(std::string_view(translated).substr(0, offset)) + ")");
  }
  context_.reset(pcre2_match_context_create(nullptr));
  if (!context_) throw std::bad_alloc();
  pcre2_set_match_limit(context_.get(), kMatchLimit);
  pcre2_set_heap_limit(context_.get(), kHeapLimitKiB);
  jit_ = pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE) == 0;
}

void Regex::find_all(std::string_view text, std::vector<TextRange>& matches) const {
  matches.clear();
  if (text.empty()) return;
  const std::unique_ptr<pcre2_match_data, FreeMatchData> data(pcre2_match_data_create(1, nullptr));
  if (!data) throw std::bad_alloc();
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
  size_t position = 0;
  while (position <= text.size()) {
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    if (jit_) {
      found = pcre2_jit_match(code_.get(), subject, text.size(), position, PCRE2_NO_UTF_CHECK,
                              data.get(), context_.get());
    }
    // The interpreter keeps its state on the heap, so it can go on where the JIT's small stack
    // ends.
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
      found = pcre2_match(code_.get(), subject, text.size(), position,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), context_.get());
    }
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0) {
      throw ModelError("the tokenizer's regex " + quote(pattern_) +
                       " failed on this text: " + pcre2_message(found));
    }
    const TextRange match{bounds[0], bounds[1]};
    // \K inside a lookahead can put the start behind the end, or the match before the place where
    // the search began.
    if (match.begin > match.end || match.begin < position) {
      throw ModelError("the tokenizer's regex " + quote(pattern_) +
                       " moves the start of its match out of order");
    }
    const bool touches_previous = !matches.empty() && matches.back().end == match.end;
    if (match.begin == match.end && touches_previous) {
      if (position == text.size()) return;
      utf8::decode(text, position);
      continue;
    }
    matches.push_back(match);
    position = match.end;
  }
}

Pattern Pattern::parse(const JsonNode& node) {
  if (node.has("String")) {
    std::string literal = node.at("String").string();
    if (!literal.empty()) return Pattern(std::move(literal));
    return Pattern(Regex(""));
  }
  if (!node.has("Regex")) node.fail("expected {\"String\": …} or {\"Regex\": …}");
  const JsonNode regex = node.at("Regex");
  try {
    return Pattern(Regex(regex.string()));
  } catch (const RegexError& error) {
    regex.fail(error.what());
  }
}

void Pattern::find_all(std::string_view text, std::vector<TextRange>& matches) const {
  if (regex_) return regex_->find_all(text, matches);
  matches.clear();
  for (size_t begin = text.find(literal_); begin != std::string_view::npos;
       begin = text.find(literal_, begin + literal_.size())) {
    matches.push_back({begin, begin + literal_.size()});
  }
}

std::string Pattern::replace(std::string_view text, std::string_view content) const {
  std::vector<TextRange> matches;
  find_all(text, matches);
  std::string result;
  result.reserve(text.size());
  size_t position = 0;
  for (const TextRange& match : matches) {
    result.append(text.substr(position, match.begin - position)).append(content);
    position = match.end;
  }
  return result.append(text.substr(position));
}

}  // namespace tandem
