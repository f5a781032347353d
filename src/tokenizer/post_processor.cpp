#include "tokenizer/post_processor.h"

#include <array>
#include <nlohmann/json.hpp>

namespace tandem {
namespace {

constexpr std::array<std::string_view, 3> kKnown{"TemplateProcessing", "Sequence", "ByteLevel"};

std::vector<int32_t> special_token_ids(const JsonNode& special_tokens, const JsonNode& name) {
  const std::string key = name.string();
  if (!special_tokens.has(key)) name.fail("special_tokens lacks " + quote(key));
  std::vector<int32_t> ids;
  for (const JsonNode& id : special_tokens.at(key).at("ids").elements())
    ids.push_back(id.token_id());
  return ids;
}

PostProcessor parse_template(const JsonNode& node) {
  PostProcessor result;
  bool text_seen = false;
  const JsonNode single = node.at("single");
  for (const JsonNode& piece : single.elements()) {
    if (piece.has("Sequence")) {
      const JsonNode id = piece.at("Sequence").at("id");
      if (id.string() != "A")
        id.fail("a template for a single text has no sequence " + quote(id.string()));
      if (text_seen) id.fail("a template with the text in two places is not supported");
      text_seen = true;
    } else if (piece.has("SpecialToken")) {
      const std::vector<int32_t> ids =
          special_token_ids(node.at("special_tokens"), piece.at("SpecialToken").at("id"));
      std::vector<int32_t>& side = text_seen ? result.suffix : result.prefix;
      side.insert(side.end(), ids.begin(), ids.end());
    } else {
      piece.fail("expected {\"Sequence\": …} or {\"SpecialToken\": …}");
    }
  }
  if (!text_seen) single.fail("lacks the sequence 'A', the text itself");
  return result;
}

/// @param template_seen set by the first template; HF's meaning of a second one depends on how it
/// counts sequences
PostProcessor parse(const JsonNode& node, int depth, bool& template_seen) {
  const std::string type = node.type();
  if (type == "ByteLevel") return {};
  if (type == "TemplateProcessing") {
    if (template_seen) node.fail("a second template is not supported");
    template_seen = true;
    return parse_template(node);
  }
  if (type == "Sequence") {
    if (depth >= kMaxNesting) node.fail("sequences nest too deeply");
    PostProcessor result;
    for (const JsonNode& part : node.at("processors").elements()) {
      PostProcessor next = parse(part, depth + 1, template_seen);
      if (!next.prefix.empty() || !next.suffix.empty()) result = std::move(next);
    }
    return result;
  }
  node.fail_unknown_type("post-processor", kKnown);
}

}  // namespace

PostProcessor parse_post_processor(const JsonNode& node) {
  bool template_seen = false;
  return node.is_null() ? PostProcessor{} : parse(node, 0, template_seen);
}

}  // namespace tandem
