#include "model/language_model.h"

namespace tandem {

void LanguageModel::forward_argmax(const Rows& rows, int first_row, int32_t* ids, Stream& stream) {
  const TensorView logits = forward(rows, first_row, stream);
  if (logits.empty()) return;
  RoundView no_round;
  no_round.vocab = vocab_size();
  backend().argmax(no_round, logits, {}, 0, nullptr, ids, stream);
}

}  // namespace tandem
