#include "tokenizer/stream_decoder.h"

#include "tokenizer/decoder_pipeline.h"
#include "tokenizer/tokenizer_parts.h"

namespace tandem {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : parts_(tokenizer.parts_),
      skip_special_(skip_special),
      pipeline_(std::make_unique<DecoderPipeline>(parts_->decoder)) {}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&& other) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&& other) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  std::string text;
  if (skip_special_ && parts_->is_special(id)) return text;
  if (const auto token = parts_->token(id)) pipeline_->push(*token, text);
  return text;
}

std::string StreamDecoder::flush() {
  std::string text;
  pipeline_->finish(text);
  pipeline_ = std::make_unique<DecoderPipeline>(parts_->decoder);
  return text;
}

}  // namespace tandem
