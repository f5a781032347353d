#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "model/transformer.h"
#include "spec/speculative_decoder.h"

namespace tandem::test {

using Tokens = std::vector<int32_t>;

enum class PairDrafter { kNone, kModel, kNgram };

/// The bundled pair of real models behind the real decoder, on one device.
class DemoPair {
 public:
  static constexpr int kMaxDrafts = 12;

  explicit DemoPair(PairDrafter kind, const DeviceSpec& device = {});

  /// The text behind a prompt; the prompt is run once for texts that follow each other.
  Tokens generate(const Tokens& prompt, const DecodeSettings& settings, int tokens);

  double acceptance_rate() const;
  int vocab_size() const { return main_->vocab_size(); }
  SpeculativeDecoder& decoder() { return *decoder_; }

 private:
  std::unique_ptr<Transformer> load(const char* name);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Transformer> main_, draft_;
  std::optional<SpeculativeDecoder> decoder_;
  Tokens prompt_;
  int64_t drafted_ = 0, accepted_ = 0;
};

/// The prompts of the reference that another implementation computed.
std::vector<Tokens> demo_prompts();

DecodeSettings demo_settings(DecodeRule::Kind kind, int k, float temperature, uint64_t seed = 0);

/// Texts of every prompt with the draft model at K = 1 … `most_drafts` and with n-gram, against
/// plain decoding on the same device. Returns how many tokens were compared.
int64_t check_same_texts(const DeviceSpec& device, DecodeRule::Kind kind, float temperature,
                         int tokens, int most_drafts);

}  // namespace tandem::test
