#include "core/tensor_view.h"

#include <algorithm>

#include "tandem/error.h"

namespace tandem {

Shape::Shape(std::initializer_list<int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  if (dims.size() > kMaxRank)
    throw ShapeError("a shape has at most 4 dimensions, not " + std::to_string(dims.size()));
  std::copy(dims.begin(), dims.end(), dims_.begin());
}

int64_t Shape::count() const {
  int64_t count = 1;
  for (int axis = 0; axis < rank_; ++axis) count *= dims_[static_cast<size_t>(axis)];
  return count;
}

std::string Shape::to_string() const {
  std::string text = "(";
  for (int axis = 0; axis < rank_; ++axis) {
    if (axis > 0) text += ", ";
    text += std::to_string(dims_[static_cast<size_t>(axis)]);
  }
  return text + ")";
}

TensorView::TensorView(void* data, DType dtype, Shape shape, DeviceId device)
    : data_(data), dtype_(dtype), shape_(shape), device_(device) {
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] < 0) throw ShapeError("negative dimension in shape " + shape.to_string());
  }
  if (data == nullptr && shape.count() > 0)
    throw ShapeError("null data for shape " + shape.to_string());
}

TensorView TensorView::rows(int64_t first, int64_t count) const {
  if (shape_.rank() == 0 || first < 0 || count < 0 || first + count > shape_[0]) {
    throw ShapeError("rows [" + std::to_string(first) + ", " + std::to_string(first + count) +
                     ") outside a tensor of shape " + shape_.to_string());
  }
  const int64_t row = shape_[0] == 0 ? 0 : shape_.count() / shape_[0];
  Shape shape;
  switch (shape_.rank()) {
    case 1:
      shape = {count};
      break;
    case 2:
      shape = {count, shape_[1]};
      break;
    case 3:
      shape = {count, shape_[1], shape_[2]};
      break;
    default:
      shape = {count, shape_[1], shape_[2], shape_[3]};
  }
  auto* const start =
      static_cast<std::byte*>(data_) + static_cast<size_t>(first * row) * size_of(dtype_);
  return TensorView(start, dtype_, shape, device_);
}

TensorView TensorView::reshaped(Shape shape) const {
  if (shape.count() != count()) {
    throw ShapeError("cannot view shape " + shape_.to_string() + " as " + shape.to_string());
  }
  return TensorView(data_, dtype_, shape, device_);
}

}  // namespace tandem
