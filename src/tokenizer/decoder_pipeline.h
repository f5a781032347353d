#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/decoder.h"

namespace tandem {

/// One run of a decoder over a sequence of tokens, which arrive one by one. Text is put out as soon
/// as no later token can change it. Whole texts are decoded by the same code, so both ways agree.
/// The decoder must outlive it. One thread at a time.
class DecoderPipeline {
 public:
  /// A step at work. Tokens arrive in parts: `part` any number of times, then `end_token`. Parts
  /// are valid UTF-8.
  class Stage {
   public:
    virtual ~Stage() = default;
    virtual void part(std::string_view text) = 0;
    virtual void end_token() = 0;
    /// Nothing follows. A stage passes on what it holds, ends a token it has opened, then finishes
    /// the next stage.
    virtual void finish() = 0;
  };

  explicit DecoderPipeline(const Decoder& decoder);

  /// Takes the next token; appends the text that became final to `text`.
  void push(std::string_view token, std::string& text);
  /// Appends what was held back. The pipeline is used up then.
  void finish(std::string& text);

 private:
  std::vector<std::unique_ptr<Stage>>
      stages_;  ///< from the last one, which collects the text, to the first
  std::string output_;
};

}  // namespace tandem
