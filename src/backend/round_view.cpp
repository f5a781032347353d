#include "backend/round_view.h"

#include <string>

#include "tandem/error.h"

namespace tandem {

void check_share(const TensorView& logits, const TensorView& choices) {
  const bool matrix = logits.dtype() == DType::kF32 && logits.shape().rank() == 2;
  if (matrix && logits.dim(1) > 0 && choices.dtype() == DType::kI32 &&
      choices.shape() == Shape{logits.dim(0), 2}) {
    return;
  }
  throw ShapeError("share_argmax: " + std::string(name_of(logits.dtype())) + " logits " +
                   logits.shape().to_string() + " for choices " + choices.shape().to_string() +
                   ", expected float32 (rows, share) for int32 (rows, 2)");
}

void check_choices(const TensorView& choices) {
  const Shape& shape = choices.shape();
  if (choices.dtype() == DType::kI32 && shape.rank() == 3 && shape[0] > 0 && shape[2] == 2) return;
  throw ShapeError("join_argmax: " + std::string(name_of(choices.dtype())) + " choices " +
                   shape.to_string() + ", expected int32 (shares, rows, 2)");
}

}  // namespace tandem
