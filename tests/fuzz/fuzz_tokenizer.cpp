#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/text.h"
#include "tandem/error.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/tokenizer.h"

namespace {

// Letters of several scripts, spaces, digits, marks out of order, an emoji, what special tokens
// look like.
constexpr std::string_view kText =
    "It's  the 1st\tcafe\u0301\u0316 漢か\r\n\n <s>a b</s><|x|> ÅﬁΣ😀 ▁<0x41>'LL ab";

/// Whole texts and streams must agree, in valid UTF-8.
void check_decoding(const tandem::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  for (const bool skip_special : {false, true}) {
    const std::string whole = tokenizer.decode(ids, skip_special);
    tandem::StreamDecoder decoder(tokenizer, skip_special);
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string piece = decoder.push(id);
      if (tandem::find_invalid_utf8(piece)) std::abort();
      streamed += piece;
    }
    streamed += decoder.flush();
    if (streamed != whole || tandem::find_invalid_utf8(whole)) std::abort();
  }
}

}  // namespace

/// The bytes are a tokenizer.json. If it loads, a short text is encoded and decoded. Only
/// tandem::Error may escape.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::optional<tandem::Tokenizer> tokenizer;
  try {
    tokenizer = tandem::Tokenizer::from_json(
        std::string_view(reinterpret_cast<const char*>(data), size), "fuzz.json");
  } catch (const tandem::Error&) {
    return 0;
  }
  constexpr int32_t kIdsToTry = 64;
  std::vector<int32_t> some_ids;
  for (int32_t id = -1; id < std::min(tokenizer->vocab_size() + 1, kIdsToTry); ++id) {
    some_ids.push_back(id);
    const auto bytes = tokenizer->token_bytes(id);
    if (!bytes && tokenizer->is_special(id)) std::abort();
  }
  check_decoding(*tokenizer, some_ids);
  for (const bool special : {false, true}) {
    try {
      const std::vector<int32_t> ids = tokenizer->encode(kText, special);
      for (const int32_t id : ids) {
        if (!tokenizer->token_bytes(id)) std::abort();
      }
      check_decoding(*tokenizer, ids);
    } catch (const tandem::Error&) {  // a pattern may backtrack without end
    }
  }
  return 0;
}
