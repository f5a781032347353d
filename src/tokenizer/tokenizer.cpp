#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "core/text.h"
#include "tandem/error.h"
#include "tokenizer/decoder_pipeline.h"
#include "tokenizer/tokenizer_parts.h"

namespace tandem {
namespace {

/// The document, with null for the components that it leaves out.
nlohmann::json parse_json(std::string_view text, const std::string& name) {
  try {
    nlohmann::json document = nlohmann::json::parse(text);
    if (!document.is_object()) return document;
    for (const char* key :
         {"added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
      document.emplace(key, nullptr);
    }
    return document;
  } catch (const nlohmann::json::exception& error) {
    throw ModelError(name + ": not valid JSON: " + error.what());
  }
}

/// Every id that the template adds must be some token's.
void check_template(const JsonNode& node, const TokenizerParts& parts) {
  for (const auto* side : {&parts.post_processor.prefix, &parts.post_processor.suffix}) {
    for (const int32_t id : *side) {
      if (!parts.token(id)) node.fail("adds id " + std::to_string(id) + ", which no token has");
    }
  }
}

}  // namespace

std::optional<std::string_view> TokenizerParts::token(int32_t id) const {
  if (const AddedToken* token = added.find(id)) return token->content;
  return model.vocabulary().token(id);
}

bool TokenizerParts::is_special(int32_t id) const {
  const AddedToken* token = added.find(id);
  return token != nullptr && token->special;
}

Tokenizer::Tokenizer(std::shared_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}

Tokenizer Tokenizer::from_folder(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer.json";
  std::error_code error;
  if (std::filesystem::is_directory(folder, error) && !std::filesystem::exists(path, error)) {
    throw ModelError(
        path.string() +
        ": no such file; older folders hold other tokenizer files, which transformers' "
        "AutoTokenizer can save as this one");
  }
  return from_json(read_text_file(path), path.string());
}

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view name) {
  const std::string file(name);
  const nlohmann::json document = parse_json(text, file);
  const JsonNode root(document, file);
  auto parts = std::make_shared<TokenizerParts>();
  parts->model = Bpe::parse(root.at("model"));
  parts->normalizer = parse_normalizer(root.at("normalizer"));
  parts->pre_tokenizer = parse_pre_tokenizer(root.at("pre_tokenizer"));
  parts->added =
      AddedTokens::parse(root.at("added_tokens"), parts->model.vocabulary(), *parts->normalizer);
  parts->post_processor = parse_post_processor(root.at("post_processor"));
  check_template(root.at("post_processor"), *parts);
  parts->decoder = Decoder::parse(root.at("decoder"));
  return Tokenizer(std::move(parts));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool special) const {
  if (const auto offset = find_invalid_utf8(text)) {
    throw UsageError("the text is not valid UTF-8 at byte " + std::to_string(*offset));
  }
  const TokenizerParts& parts = *parts_;
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  if (special) ids = parts.post_processor.prefix;

  const auto encode_ordinary = [&](NormalizedText ordinary) {
    PieceList list(std::move(ordinary));
    parts.pre_tokenizer->split(list);
    for (const PieceList::Piece& piece : list.pieces)
      parts.model.encode(list.view(piece), scratch, ids);
  };
  const auto view = [](std::string_view whole, const TextRange& range) {
    return whole.substr(range.begin, range.end - range.begin);
  };
  for (const Segment& outer : parts.added.divide(text, false, special)) {
    if (outer.token) {
      ids.push_back(*outer.token);
      continue;
    }
    NormalizedText stretch{std::string(view(text, outer.range)), outer.range.begin == 0};
    parts.normalizer->apply(stretch);
    for (const Segment& inner : parts.added.divide(stretch.text, true, special)) {
      if (inner.token) {
        ids.push_back(*inner.token);
      } else {
        encode_ordinary({std::string(view(stretch.text, inner.range)),
                         stretch.at_start && inner.range.begin == 0});
      }
    }
  }
  if (special)
    ids.insert(ids.end(), parts.post_processor.suffix.begin(), parts.post_processor.suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  DecoderPipeline pipeline(parts_->decoder);
  std::string text;
  for (const int32_t id : ids) {
    if (skip_special && parts_->is_special(id)) continue;
    if (const auto token = parts_->token(id)) pipeline.push(*token, text);
  }
  pipeline.finish(text);
  return text;
}

std::optional<std::string> Tokenizer::token_bytes(int32_t id) const {
  if (const AddedToken* token = parts_->added.find(id)) return token->content;
  const auto token = parts_->model.vocabulary().token(id);
  if (!token) return std::nullopt;
  return parts_->decoder.token_bytes(*token);
}

bool Tokenizer::is_special(int32_t id) const { return parts_->is_special(id); }

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  if (const AddedToken* added = parts_->added.find(token)) return added->id;
  return parts_->model.vocabulary().id(token);
}

int32_t Tokenizer::vocab_size() const {
  return std::max(parts_->added.size(), parts_->model.vocabulary().size());
}

}  // namespace tandem
