#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/library_matmul.h"
#include "backend/cuda/prefill_workspace.h"
#include "kernels/unpack.h"

namespace tandem {
namespace {

/// Whether outputs follow each other in the panels as they do in `out`.
bool is_contiguous(const kernels::MatmulArgs& args) {
  for (int i = 0; i + 1 < args.segment_count; ++i) {
    if (args.segment_rows[i] % kernels::kPanelOutputs != 0) return false;
  }
  return true;
}

/// Whether the library's sums are the results.
bool is_plain(const kernels::MatmulArgs& args) {
  constexpr int64_t kAlignedElements = 8;
  return args.epilogue != kernels::MatmulEpilogue::kSiluGate && args.bias == nullptr &&
         args.format != kernels::Packed::kFp8 && is_contiguous(args) &&
         args.out_stride % kAlignedElements == 0 &&
         args.segment_column[0] % kAlignedElements == 0 &&
         (args.format == kernels::Packed::kBF16 || args.out_type == kernels::Element::kF32);
}

}  // namespace

void CudaBackend::lend_workspace(TensorView memory, Stream& stream) {
  static_cast<CudaStream&>(stream).lend(memory);
}

void CudaBackend::multiply_packed(const kernels::MatmulArgs& args, Stream& stream) {
  const auto size = [](kernels::Element type) { return type == kernels::Element::kF32 ? 4 : 2; };
  for (int first = 0; first < args.rows; first += kernels::kMaxDecodeRows) {
    kernels::MatmulArgs part = args;
    part.rows = std::min(args.rows - first, kernels::kMaxDecodeRows);
    part.x = static_cast<const std::byte*>(args.x) + first * args.cols * size(args.x_type);
    part.out = static_cast<std::byte*>(args.out) + first * args.out_stride * size(args.out_type);
    check(kernels::matmul_rows(part, launch(stream)), "matmul");
  }
}

bool CudaBackend::multiply_by_library(const kernels::MatmulArgs& args, Stream& stream) {
  const TensorView& workspace = static_cast<CudaStream&>(stream).workspace();
  if (args.rows <= kMostPackedRows || args.x_type != kernels::Element::kBF16 ||
      !has_plain_form(args.format, args.cols)) {
    return false;
  }
  const PrefillWorkspace layout(args.rows, args.cols, args.panel_count, args.format);
  if (workspace.bytes() < layout.bytes()) return false;
  if (library_ == nullptr) {
    use_device();
    library_ = std::make_unique<LibraryMatmul>(device_.index);
  }

  auto* const base = workspace.as<std::byte>();
  auto* const weight = base + layout.weight_offset();
  auto* const sums = reinterpret_cast<float*>(base + layout.sums_offset());
  const bool float16 = args.format == kernels::Packed::kF16;
  const void* x = args.x;
  if (float16) {
    x = base + layout.inputs_offset();
    check(kernels::bf16_to_f16(args.x, base + layout.inputs_offset(), args.rows * args.cols,
                               launch(stream)),
          "bf16_to_f16");
  }
  const bool plain = is_plain(args);
  int64_t outputs = 0;
  for (int i = 0; i < args.segment_count; ++i) outputs += args.segment_rows[i];
  const int64_t pitch = kernels::panel_bytes(args.format, args.cols);
  for (int64_t first = 0; first < args.panel_count; first += layout.slice_panels()) {
    const int64_t panels = std::min(layout.slice_panels(), args.panel_count - first);
    check(kernels::unpack(static_cast<const std::byte*>(args.panels) + first * pitch, panels,
                          args.cols, args.format, weight, launch(stream)),
          "unpack");
    const int64_t first_output = first * kernels::kPanelOutputs;
    LibraryMatmul::Shape shape{.rows = args.rows,
                               .outputs = panels * kernels::kPanelOutputs,
                               .inputs = args.cols,
                               .out_stride = panels * kernels::kPanelOutputs,
                               .float16 = float16,
                               .out_float32 = true,
                               .accumulate = false};
    void* out = sums;
    if (plain) {
      const bool wide = args.out_type == kernels::Element::kF32;
      shape.outputs = std::min(shape.outputs, outputs - first_output);
      shape.out_stride = args.out_stride;
      shape.out_float32 = wide;
      shape.accumulate = args.epilogue == kernels::MatmulEpilogue::kAdd;
      out = static_cast<std::byte*>(args.out) +
            (args.segment_column[0] + first_output) * (wide ? 4 : 2);
    }
    library_->run(shape,
                  {.weight = weight,
                   .x = x,
                   .out = out,
                   .workspace = base,
                   .workspace_bytes = layout.library_bytes()},
                  static_cast<CudaStream&>(stream).handle());
    if (plain) continue;
    check(kernels::finish_products(args, sums, first, panels, launch(stream)), "finish_products");
  }
  return true;
}

}  // namespace tandem
