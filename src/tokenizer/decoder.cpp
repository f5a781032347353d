#include "tokenizer/decoder.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>

#include "tokenizer/byte_level.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/utf8.h"

namespace tandem {
namespace {

constexpr std::array<std::string_view, 7> kKnown{"Sequence", "Replace", "ByteLevel", "ByteFallback",
                                                 "Fuse",     "Strip",   "Metaspace"};
constexpr int64_t kMaxStrip = 1 << 16;

void parse_step(const JsonNode& node, int depth, std::vector<DecoderStep>& steps) {
  const std::string type = node.type();
  if (type == "Sequence") {
    if (depth >= kMaxNesting) node.fail("sequences nest too deeply");
    for (const JsonNode& part : node.at("decoders").elements()) parse_step(part, depth + 1, steps);
  } else if (type == "Replace") {
    steps.push_back(
        decoder_step::Replace{Pattern::parse(node.at("pattern")), node.at("content").string()});
  } else if (type == "ByteLevel") {
    steps.emplace_back(std::in_place_type<decoder_step::ByteLevel>);
  } else if (type == "ByteFallback") {
    steps.emplace_back(std::in_place_type<decoder_step::ByteFallback>);
  } else if (type == "Fuse") {
    steps.emplace_back(std::in_place_type<decoder_step::Fuse>);
  } else if (type == "Strip") {
    steps.push_back(decoder_step::Strip{
        node.at("content").character(), static_cast<size_t>(node.at("start").integer(0, kMaxStrip)),
        static_cast<size_t>(node.at("stop").integer(0, kMaxStrip))});
  } else if (type == "Metaspace") {
    const MetaspaceOptions options = MetaspaceOptions::parse(node);
    steps.push_back(decoder_step::Metaspace{options.replacement,
                                            options.prepend != MetaspaceOptions::Prepend::kNever});
  } else {
    node.fail_unknown_type("decoder", kKnown);
  }
}

/// What one step makes of a token in mid-text. `joined` is set when later steps see the token
/// joined with others.
struct TokenBytes {
  std::string token;
  bool joined = false;

  void operator()(const decoder_step::Replace& step) {
    token = step.pattern.replace(token, step.content);
  }
  void operator()(const decoder_step::ByteLevel&) {
    if (auto bytes = byte_level::bytes_of(token)) token = std::move(*bytes);
    joined = true;
  }
  void operator()(const decoder_step::ByteFallback&) {
    const std::optional<uint8_t> byte = byte_fallback_value(token);
    if (!byte) return;
    token.assign(1, static_cast<char>(*byte));
    joined = true;
  }
  void operator()(const decoder_step::Fuse&) { joined = true; }
  void operator()(const decoder_step::Strip& step) {
    std::string content;
    utf8::append(content, step.content);
    std::string_view rest = token;
    for (size_t i = 0; i < step.start && rest.starts_with(content); ++i)
      rest.remove_prefix(content.size());
    for (size_t i = 0; i < step.stop && rest.ends_with(content); ++i)
      rest.remove_suffix(content.size());
    token = std::string(rest);
  }
  void operator()(const decoder_step::Metaspace& step) {
    std::string text;
    for (size_t i = 0; i < token.size();) {
      const char32_t c = utf8::decode(token, i);
      utf8::append(text, c == step.replacement ? U' ' : c);
    }
    token = std::move(text);
  }
  void operator()(const decoder_step::Spaces&) {}
};

}  // namespace

std::optional<uint8_t> byte_fallback_value(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  uint8_t byte = 0;
  const char* end = token.data() + 5;
  const auto [stop, error] = std::from_chars(token.data() + 3, end, byte, 16);
  if (error != std::errc() || stop != end) return std::nullopt;
  return byte;
}

Decoder Decoder::parse(const JsonNode& node) {
  Decoder decoder;
  if (node.is_null()) {
    decoder.steps_.emplace_back(std::in_place_type<decoder_step::Spaces>);
  } else {
    parse_step(node, 0, decoder.steps_);
  }
  return decoder;
}

std::string Decoder::token_bytes(std::string_view token) const {
  TokenBytes bytes{std::string(token)};
  for (const DecoderStep& step : steps_) {
    if (bytes.joined) break;
    std::visit(bytes, step);
  }
  return std::move(bytes.token);
}

}  // namespace tandem
