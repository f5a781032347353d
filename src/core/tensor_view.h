#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "core/device.h"
#include "core/dtype.h"

namespace tandem {

/// Dimensions of a dense row-major tensor, outermost first.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);
  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return dims_[static_cast<size_t>(axis)]; }
  int64_t count() const;
  bool operator==(const Shape&) const = default;
  std::string to_string() const;  ///< "(4, 320)"

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

/// Looks at memory on a device that somebody else owns: pointer, type, shape. Dense, row-major.
/// Checked when made: no negative dimension, no null pointer with elements. Copying copies the
/// view.
class TensorView {
 public:
  TensorView() = default;
  /// @throws ShapeError on a negative dimension, or a null pointer to a non-empty tensor
  TensorView(void* data, DType dtype, Shape shape, DeviceId device);

  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int axis) const { return shape_[axis]; }
  DeviceId device() const { return device_; }
  int64_t count() const { return shape_.count(); }
  size_t bytes() const { return static_cast<size_t>(count()) * size_of(dtype_); }
  bool empty() const { return data_ == nullptr; }

  /// Rows [first, first + count) of the outermost dimension. @throws ShapeError outside the tensor
  TensorView rows(int64_t first, int64_t count) const;
  /// The same elements under another shape. @throws ShapeError when the counts differ
  TensorView reshaped(Shape shape) const;

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_;
  DeviceId device_;
};

}  // namespace tandem
