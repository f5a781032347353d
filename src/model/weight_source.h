#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "backend/weight_view.h"
#include "core/tensor_view.h"
#include "model/shard.h"

namespace tandem {

/// What a checkpoint's header says about a tensor.
struct TensorInfo {
  DType dtype = DType::kBF16;
  Shape shape;
  std::string file;  ///< what messages call the file that holds it
};

/// Where weights come from: a checkpoint on disk, or one computed from another. One thread at a
/// time.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  virtual std::string name() const = 0;  ///< for messages: the folder
  virtual bool has(std::string_view tensor) const = 0;
  /// Without touching the tensor's data.
  /// @throws ModelError when there is no such tensor, or its element type is none of f32, f16, bf16
  virtual TensorInfo info(std::string_view tensor) const = 0;
  /// The tensor's elements, valid until `done_with`. A 1-D tensor (n) is one row of n columns.
  /// @throws ModelError as `info`, and when the tensor is no matrix or vector
  virtual HostMatrix tensor(std::string_view tensor) = 0;
  /// Rows and columns of `tensor`, for a shard; a source that computes elements computes no others.
  virtual HostMatrix window(std::string_view tensor, Range rows, Range cols);
  /// The elements are not needed soon; their host memory may be given back. `tensor` may still be
  /// called again.
  virtual void done_with(std::string_view tensor) = 0;
};

/// Opens the safetensors files of a folder: model.safetensors, or the shards of
/// model.safetensors.index.json.
/// @throws ModelError of one line: no such file, damaged header, offsets out of range or
/// overlapping, truncated file
std::unique_ptr<WeightSource> open_weights(const std::filesystem::path& folder);

}  // namespace tandem
