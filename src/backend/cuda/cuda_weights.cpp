#include <cuda_runtime_api.h>

#include <string>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/packed_weight.h"
#include "backend/cuda/quantization.h"
#include "backend/cuda/weight_loader.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// The format as the device holds it.
WeightFormat held_format(WeightFormat format) {
  return format == WeightFormat::kF32 ? WeightFormat::kBF16 : format;
}

void check_segment(const WeightSpec& spec, size_t index, const HostMatrix& host) {
  if (host.rows != spec.segments[index].rows || host.cols != spec.cols ||
      host.row_stride < host.cols || host.data == nullptr) {
    throw ShapeError("load_weight: segment " + std::to_string(index) + " has shape (" +
                     std::to_string(host.rows) + ", " + std::to_string(host.cols) +
                     "), the weight expects (" + std::to_string(spec.segments[index].rows) + ", " +
                     std::to_string(spec.cols) + ")");
  }
  if (host.dtype != DType::kF32 && host.dtype != DType::kF16 && host.dtype != DType::kBF16) {
    throw ShapeError("load_weight: a matrix of " + std::string(name_of(host.dtype)) +
                     " is no weight; expected float32, float16 or bfloat16");
  }
}

}  // namespace

WeightView CudaBackend::load_weight(const WeightSpec& spec, std::span<const HostMatrix> segments,
                                    std::span<const float> bias, void* destination,
                                    Stream& stream) {
  const PackedLayout layout(spec);
  if (segments.size() != spec.segments.size()) {
    throw ShapeError("load_weight: " + std::to_string(segments.size()) + " matrices for " +
                     std::to_string(spec.segments.size()) + " segments");
  }
  for (size_t i = 0; i < segments.size(); ++i) check_segment(spec, i, segments[i]);
  if (bias.size() != (spec.has_bias ? static_cast<size_t>(spec.rows()) : 0)) {
    throw ShapeError("load_weight: " + std::to_string(bias.size()) + " bias values for " +
                     std::to_string(spec.rows()) + " outputs");
  }
  auto& target = static_cast<CudaStream&>(stream);
  auto* const base = static_cast<std::byte*>(destination);
  fill_zero(destination, layout.bytes(), stream);  // padding must be zero, not merely unused
  WeightLoader& loader = target.loader(memory_);

  WeightView view;
  view.rows = spec.rows();
  view.cols = spec.cols;
  view.segment_count = static_cast<int>(segments.size());
  view.paired = spec.paired;
  for (size_t i = 0; i < segments.size(); ++i) {
    const PackedLayout::Segment& part = layout.segment(static_cast<int>(i));
    const WeightFormat format = held_format(spec.segments[i].format);
    const bool fp8 = format == WeightFormat::kFp8E4M3;
    auto* const scales = fp8 ? reinterpret_cast<float*>(base + part.scales) : nullptr;
    loader.load(segments[i],
                {.format = packed_format(format),
                 .panels = base + part.data,
                 .scales = scales,
                 .paired_half = spec.paired ? static_cast<int>(i) : -1},
                target, launch(stream));
    view.segments[i] = {.format = format,
                        .rows = spec.segments[i].rows,
                        .data = base + part.data,
                        .scales = scales,
                        .zeros = nullptr,
                        .group_size = format == WeightFormat::kInt4Group128 ? kInt4Group : 0};
  }
  if (spec.has_bias) {
    auto* const values = reinterpret_cast<float*>(base + layout.bias_offset());
    copy_to_device(values, bias.data(), bias.size_bytes(), stream);
    view.bias = values;
  }
  // Kernels read weights ahead of what they wait for: never start one beside the packing.
  target.forbid_overlap();
  return view;
}

}  // namespace tandem
