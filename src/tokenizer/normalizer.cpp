#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "tandem/error.h"
#include "tokenizer/regex.h"
#include "tokenizer/utf8.h"

namespace tandem {
namespace {

constexpr std::array<std::string_view, 10> kKnown{"Sequence", "Prepend",     "Replace", "NFC",
                                                  "NFD",      "NFKC",        "NFKD",    "Lowercase",
                                                  "Strip",    "StripAccents"};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<const Normalizer>> parts)
      : parts_(std::move(parts)) {}
  void apply(NormalizedText& text) const override {
    for (const auto& part : parts_) part->apply(text);
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> parts_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void apply(NormalizedText& text) const override {
    if (!text.text.empty()) text.text.insert(0, prefix_);
  }

 private:
  std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void apply(NormalizedText& text) const override {
    text.text = pattern_.replace(text.text, content_);
  }

 private:
  Pattern pattern_;
  std::string content_;
};

/// Unicode normalisation forms (UAX #15).
class UnicodeForm : public Normalizer {
 public:
  UnicodeForm(bool compose, bool compatibility)
      : options_(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                 (compatibility ? UTF8PROC_COMPAT : 0)),
        // Below U+0300, nothing composes; below U+0080, nothing decomposes either.
        first_affected_lead_(compose && !compatibility ? 0xCC : 0x80) {}

  void apply(NormalizedText& text) const override {
    const auto affected = [&](char c) { return static_cast<uint8_t>(c) >= first_affected_lead_; };
    if (std::none_of(text.text.begin(), text.text.end(), affected)) return;
    std::vector<utf8proc_int32_t> code_points = decomposed(text.text);
    sort_marks(code_points);
    const utf8proc_ssize_t count = utf8proc_normalize_utf32(
        code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), options());
    if (count < 0)
      throw Error(std::string("Unicode normalisation failed: ") + utf8proc_errmsg(count));
    std::string result;
    result.reserve(text.text.size());
    for (utf8proc_ssize_t i = 0; i < count; ++i) {
      utf8::append(result, static_cast<char32_t>(code_points[static_cast<size_t>(i)]));
    }
    text.text = std::move(result);
  }

 private:
  // The longest decomposition of one character has 18 code points (U+FDFA).
  static constexpr size_t kLongestDecomposition = 18;

  utf8proc_option_t options() const { return static_cast<utf8proc_option_t>(options_); }

  std::vector<utf8proc_int32_t> decomposed(std::string_view text) const {
    std::vector<utf8proc_int32_t> code_points;
    code_points.reserve(text.size());
    std::array<utf8proc_int32_t, kLongestDecomposition> buffer;
    int last_boundclass = 0;
    for (size_t i = 0; i < text.size();) {
      const auto code_point = static_cast<utf8proc_int32_t>(utf8::decode(text, i));
      const utf8proc_ssize_t count = utf8proc_decompose_char(
          code_point, buffer.data(), buffer.size(), options(), &last_boundclass);
      if (count < 0)
        throw Error(std::string("Unicode normalisation failed: ") + utf8proc_errmsg(count));
      code_points.insert(code_points.end(), buffer.begin(), buffer.begin() + count);
    }
    return code_points;
  }

  /// Canonical ordering. utf8proc's own sort takes quadratic time on long runs of marks.
  static void sort_marks(std::vector<utf8proc_int32_t>& code_points) {
    const auto combining_class = [](utf8proc_int32_t c) {
      return utf8proc_get_property(c)->combining_class;
    };
    for (auto begin = code_points.begin(); begin != code_points.end();) {
      if (combining_class(*begin) == 0) {
        ++begin;
        continue;
      }
      const auto end =
          std::find_if(begin, code_points.end(), [&](auto c) { return combining_class(c) == 0; });
      std::stable_sort(begin, end,
                       [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
      begin = end;
    }
  }

  int options_;
  uint8_t first_affected_lead_;
};

/// Maps every character by itself.
class Lowercase : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    constexpr char32_t kCapitalIWithDot = 0x130;  // the only character whose lower case is two
    std::string result;
    result.reserve(text.text.size());
    for (size_t i = 0; i < text.text.size();) {
      const char32_t c = utf8::decode(text.text, i);
      if (c == kCapitalIWithDot) {
        result += "i\u0307";
      } else {
        utf8::append(result,
                     static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
      }
    }
    text.text = std::move(result);
  }
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void apply(NormalizedText& text) const override {
    const std::string_view view = text.text;
    size_t end = view.size();
    for (size_t next = end; right_ && end > 0; end = next) {
      if (!utf8::is_white_space(utf8::decode_backwards(view, next))) break;
    }
    size_t begin = 0;
    for (size_t next = 0; left_ && begin < end; begin = next) {
      if (!utf8::is_white_space(utf8::decode(view, next))) break;
    }
    if (begin > 0) text.at_start = false;
    text.text = text.text.substr(begin, end - begin);
  }

 private:
  bool left_;
  bool right_;
};

class StripAccents : public Normalizer {
 public:
  void apply(NormalizedText& text) const override {
    std::string result;
    for (size_t i = 0; i < text.text.size();) {
      const char32_t c = utf8::decode(text.text, i);
      if (!utf8::is_mark(c)) utf8::append(result, c);
      if (result.empty()) text.at_start = false;
    }
    text.text = std::move(result);
  }
};

std::unique_ptr<const Normalizer> parse(const JsonNode& node, int depth) {
  const std::string type = node.type();
  if (type == "Sequence") {
    if (depth >= kMaxNesting) node.fail("sequences nest too deeply");
    std::vector<std::unique_ptr<const Normalizer>> parts;
    for (const JsonNode& part : node.at("normalizers").elements())
      parts.push_back(parse(part, depth + 1));
    return std::make_unique<Sequence>(std::move(parts));
  }
  if (type == "Prepend") return std::make_unique<Prepend>(node.at("prepend").string());
  if (type == "Replace") {
    return std::make_unique<Replace>(Pattern::parse(node.at("pattern")),
                                     node.at("content").string());
  }
  if (type == "NFC") return std::make_unique<UnicodeForm>(true, false);
  if (type == "NFD") return std::make_unique<UnicodeForm>(false, false);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(true, true);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(false, true);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Strip") {
    return std::make_unique<Strip>(node.at("strip_left").boolean(),
                                   node.at("strip_right").boolean());
  }
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  node.fail_unknown_type("normalizer", kKnown);
}

}  // namespace

std::unique_ptr<const Normalizer> parse_normalizer(const JsonNode& node) {
  if (node.is_null())
    return std::make_unique<Sequence>(std::vector<std::unique_ptr<const Normalizer>>());
  return parse(node, 0);
}

}  // namespace tandem
