#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

struct TokenizerParts;

/// Text to token ids and back, as a Hugging Face `tokenizer.json` describes it.
///
/// Supported: BPE models, byte-level (GPT-2, Llama-3, Qwen) and SentencePiece style (Llama-2,
/// Mistral), with the normalizers, pre-tokenizers, post-processors and decoders that such models
/// use. Anything else is refused by name. What tokenizer.json's post_processor says is what is
/// added around a text; tokenizer_config.json, padding and truncation play no part.
///
/// A tokenizer is an immutable value: copies share their tables, and every const function may be
/// called from several threads at once.
class Tokenizer {
 public:
  /// Reads `folder`/tokenizer.json.
  /// @throws ModelError naming the file and the place in it, when it is missing, malformed or of an
  /// unsupported kind
  static Tokenizer from_folder(const std::filesystem::path& folder);

  /// Reads the text of a tokenizer.json. `name` stands for the file in error messages.
  /// @throws ModelError as from_folder
  static Tokenizer from_json(std::string_view text, std::string_view name);

  /// Token ids of a UTF-8 text.
  /// @param special true: special tokens that the text spells out become their ids, and the tokens
  /// of the template
  ///   (for example a begin-of-text token) are added. false: the text of a special token is
  ///   tokenised like any other text and nothing is added. Added tokens that are not special are
  ///   recognised either way.
  /// @throws UsageError naming the byte offset when the text is not valid UTF-8
  /// @throws ModelError when a pattern of the tokenizer needs unreasonable backtracking on this
  /// text
  std::vector<int32_t> encode(std::string_view text, bool special) const;

  /// Text of token ids. Ids that stand for nothing (padding of the vocabulary) give no text; bytes
  /// that are not UTF-8 become U+FFFD. The result is always valid UTF-8.
  /// @param skip_special leaves special tokens out; otherwise their content is part of the text
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

  /// The raw bytes that a token adds in the middle of a text (maybe only a part of a character),
  /// for comparing vocabularies; of an added token its content. Nothing if the id is unused.
  std::optional<std::string> token_bytes(int32_t id) const;

  /// True for ids that `decode` leaves out when told to skip special tokens.
  bool is_special(int32_t id) const;

  /// The id of a token, written as the vocabulary writes it ("Ġthe", "<|end_of_text|>").
  std::optional<int32_t> token_id(std::string_view token) const;

  /// The largest id in use + 1. The model's own vocab_size may be larger (padding).
  int32_t vocab_size() const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const TokenizerParts> parts);

  std::shared_ptr<const TokenizerParts> parts_;
};

}  // namespace tandem
