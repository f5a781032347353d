#include "backend/cpu/packing.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "backend/cpu/cpu_backend.h"
#include "backend/cuda/quantization.h"
#include "core/size.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// Rounds to nearest, ties to even; too large becomes infinity, NaN stays NaN.
uint16_t float_to_f16(float value) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  constexpr uint32_t kOverflow = 0x47800000u;        // 65536: beyond every finite half
  constexpr uint32_t kSmallestNormal = 0x38800000u;  // 2^-14
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > kInfinity) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= kOverflow) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < kSmallestNormal) {
    // Adding 0.5 leaves the subnormal's 10 bits, rounded by the hardware, at the end of the sum's
    // fraction.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3f000000u));
  }
  constexpr uint32_t kRebias = (127u - 15u) << 23;
  const uint32_t rounded = magnitude - kRebias + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

uint64_t panels_of(int64_t rows) { return static_cast<uint64_t>(rows + kLanes - 1) / kLanes; }

bool stored_as(DType dtype, WeightFormat format) {
  return (dtype == DType::kBF16 && format == WeightFormat::kBF16) ||
         (dtype == DType::kF16 && format == WeightFormat::kF16) ||
         (dtype == DType::kF32 && format == WeightFormat::kF32);
}

/// Bytes from an element's line to the element, by lane and parity of its input.
template <WeightFormat kFormat>
constexpr int64_t element_offset(int lane, int parity) {
  if (kFormat == WeightFormat::kBF16) return (lane * 2 + parity) * 2;
  return (parity * kLanes + lane) * (kFormat == WeightFormat::kF32 ? 4 : 2);
}

PanelPlace place_of(const WeightView& weight, const PanelMap& map, int segment, int64_t panel) {
  const WeightView::Segment& part = weight.segments[static_cast<size_t>(segment)];
  const int64_t line = line_bytes(part.format);
  const int64_t panel_bytes = (weight.cols + 1) / 2 * line;
  const int64_t in_run = weight.paired ? 2 * panel + segment : panel;
  const PanelGroup group = map.group(weight.paired ? 0 : segment, in_run);
  PanelPlace place;
  place.first_line =
      const_cast<std::byte*>(part.data) + group.first * panel_bytes + (in_run - group.first) * line;
  place.line_stride = group.count * line;
  if (part.scales != nullptr) {
    place.scales =
        const_cast<float*>(part.scales) + in_run * scales_of_panel(part.format, weight.cols);
  }
  return place;
}

template <WeightFormat kFormat>
std::byte* element_at(const PanelPlace& place, int lane, int64_t col) {
  return place.first_line + col / 2 * place.line_stride +
         element_offset<kFormat>(lane, static_cast<int>(col % 2));
}

/// Packs outputs [first, first + rows) of a matrix, `load(row, col)` being an element in the packed
/// format.
template <WeightFormat kFormat, typename Load>
void pack_lanes(const HostMatrix& host, int64_t first, int64_t rows, const PanelPlace& place,
                Load load) {
  // Stripes of about one host cache line per row keep the 16 rows' reads and the panel's writes
  // both in the first-level cache.
  constexpr int64_t kStripe = 32;
  for (int64_t begin = 0; begin < host.cols; begin += kStripe) {
    const int64_t end = std::min(begin + kStripe, host.cols);
    for (int lane = 0; lane < rows; ++lane) {
      for (int64_t col = begin; col < end; ++col) {
        const auto element = load(first + lane, col);
        std::memcpy(element_at<kFormat>(place, lane, col), &element, sizeof(element));
      }
    }
  }
}

template <WeightFormat kFormat, typename Element, typename Convert>
void pack_as(const HostMatrix& host, int64_t first, int64_t rows, const PanelPlace& place,
             Convert convert) {
  if (stored_as(host.dtype, kFormat)) {
    const auto* data = static_cast<const Element*>(host.data);
    pack_lanes<kFormat>(host, first, rows, place, [&](int64_t row, int64_t col) {
      return data[row * host.row_stride + col];
    });
  } else {
    pack_lanes<kFormat>(host, first, rows, place, [&](int64_t row, int64_t col) -> Element {
      return convert(host_element(host, row, col));
    });
  }
}

void pack_panel(const HostMatrix& host, WeightFormat format, int64_t panel,
                const PanelPlace& place) {
  const int64_t first = panel * kLanes;
  const int64_t rows = std::min<int64_t>(kLanes, host.rows - first);
  if (rows < kLanes || host.cols % 2 != 0 || is_quantized(format)) {
    for (int64_t line = 0; line < (host.cols + 1) / 2; ++line) {
      std::memset(place.first_line + line * place.line_stride, 0,
                  static_cast<size_t>(line_bytes(format)));
    }
  }
  switch (format) {
    case WeightFormat::kBF16:
      return pack_as<WeightFormat::kBF16, uint16_t>(host, first, rows, place, float_to_bf16);
    case WeightFormat::kF16:
      return pack_as<WeightFormat::kF16, uint16_t>(host, first, rows, place, float_to_f16);
    case WeightFormat::kFp8E4M3:
    case WeightFormat::kInt4Group128:
      return pack_quantized_panel(host, format, panel, place);
    default:
      return pack_as<WeightFormat::kF32, float>(host, first, rows, place,
                                                [](float value) { return value; });
  }
}

template <WeightFormat kFormat, typename Element, typename Convert>
void unpack_lane(const PanelPlace& place, int lane, int64_t cols, Convert convert, float* out) {
  for (int64_t col = 0; col < cols; ++col) {
    Element element;
    std::memcpy(&element, element_at<kFormat>(place, lane, col), sizeof(Element));
    out[col] = convert(element);
  }
}

void check_segment(const WeightSpec& spec, size_t index, const HostMatrix& host) {
  if (host.rows != spec.segments[index].rows || host.cols != spec.cols ||
      host.row_stride < host.cols || (host.data == nullptr && host.rows > 0)) {
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

float host_element(const HostMatrix& host, int64_t row, int64_t col) {
  const int64_t index = row * host.row_stride + col;
  switch (host.dtype) {
    case DType::kF32:
      return static_cast<const float*>(host.data)[index];
    case DType::kF16:
      return f16_to_float(static_cast<const uint16_t*>(host.data)[index]);
    default:
      return bf16_to_float(static_cast<const uint16_t*>(host.data)[index]);
  }
}

PanelSizes::PanelSizes(const WeightSpec& spec) {
  if (spec.segments.empty() || spec.segments.size() > run_offsets_.size() || spec.cols <= 0) {
    throw ShapeError("a weight has 1 to " + std::to_string(run_offsets_.size()) +
                     " segments and at least one column");
  }
  if (spec.paired && (spec.segments.size() != 2 || spec.segments[0].rows != spec.segments[1].rows ||
                      spec.segments[0].format != spec.segments[1].format)) {
    throw ShapeError("the two segments of a paired weight must have equal rows and formats");
  }
  const auto lines = static_cast<uint64_t>((spec.cols + 1) / 2);
  uint64_t scales_bytes = 0;
  for (size_t i = 0; i < spec.segments.size(); ++i) {
    const WeightSpec::Segment& segment = spec.segments[i];
    if (segment.rows <= 0) throw ShapeError("a weight's segment needs at least one row");
    if (!spec.paired) run_offsets_[i] = bytes_;
    const uint64_t panels = panels_of(segment.rows);
    bytes_ += panels * lines * static_cast<uint64_t>(line_bytes(segment.format));
    scales_bytes +=
        panels * sizeof(float) * static_cast<uint64_t>(scales_of_panel(segment.format, spec.cols));
    if (spec.paired && i == 0) continue;  // one run
    scales_offsets_[spec.paired ? 0 : i] = bytes_;
    bytes_ += std::exchange(scales_bytes, 0);
  }
  bias_offset_ = bytes_;
  // The kernels read the bias a whole vector at a time, also at its end.
  if (spec.has_bias) bytes_ += static_cast<uint64_t>(spec.rows() + kLanes) * sizeof(float);
  bytes_ = align_up(bytes_, kDeviceAlignment);
}

PanelMap::PanelMap(const WeightView& weight, int workers)
    : workers_(workers), runs_(weight.paired ? 1 : weight.segment_count), paired_(weight.paired) {
  for (size_t run = 0; run < static_cast<size_t>(runs_); ++run) {
    first_unit_[run + 1] =
        first_unit_[run] + static_cast<int64_t>(panels_of(weight.segments[run].rows));
  }
}

WorkRange PanelMap::share(int run, int worker) const {
  const int64_t first = first_unit_[static_cast<size_t>(run)];
  const int64_t units = first_unit_[static_cast<size_t>(run) + 1] - first;
  const WorkRange all = split_range(first_unit_[static_cast<size_t>(runs_)], worker, workers_);
  const int64_t panels_per_unit = paired_ ? 2 : 1;
  return {std::clamp<int64_t>(all.begin - first, 0, units) * panels_per_unit,
          std::clamp<int64_t>(all.end - first, 0, units) * panels_per_unit};
}

PanelGroup PanelMap::group(int run, int64_t panel) const {
  int worker = 0;
  while (share(run, worker).end <= panel) ++worker;
  const WorkRange range = share(run, worker);
  return panel_group(range.begin, range.end, paired_, panel);
}

void unpack_row(const WeightView& weight, const PanelMap& map, int64_t row, float* out) {
  int segment = 0;
  while (row >= weight.segments[static_cast<size_t>(segment)].rows) {
    row -= weight.segments[static_cast<size_t>(segment++)].rows;
  }
  const PanelPlace place = place_of(weight, map, segment, row / kLanes);
  const auto lane = static_cast<int>(row % kLanes);
  const WeightFormat format = weight.segments[static_cast<size_t>(segment)].format;
  switch (format) {
    case WeightFormat::kFp8E4M3:
    case WeightFormat::kInt4Group128:
      return unpack_quantized_lane(place, format, lane, weight.cols, out);
    case WeightFormat::kBF16:
      return unpack_lane<WeightFormat::kBF16, uint16_t>(place, lane, weight.cols, bf16_to_float,
                                                        out);
    case WeightFormat::kF16:
      return unpack_lane<WeightFormat::kF16, uint16_t>(place, lane, weight.cols, f16_to_float, out);
    default:
      return unpack_lane<WeightFormat::kF32, float>(
          place, lane, weight.cols, [](float value) { return value; }, out);
  }
}

WeightView CpuBackend::load_weight(const WeightSpec& spec, std::span<const HostMatrix> segments,
                                   std::span<const float> bias, void* destination, Stream&) {
  const PanelSizes sizes(spec);
  if (segments.size() != spec.segments.size()) {
    throw ShapeError("load_weight: " + std::to_string(segments.size()) + " matrices for " +
                     std::to_string(spec.segments.size()) + " segments");
  }
  for (size_t i = 0; i < segments.size(); ++i) check_segment(spec, i, segments[i]);
  if (bias.size() != (spec.has_bias ? static_cast<size_t>(spec.rows()) : 0)) {
    throw ShapeError("load_weight: " + std::to_string(bias.size()) + " bias values for " +
                     std::to_string(spec.rows()) + " outputs");
  }
  auto* const base = static_cast<std::byte*>(destination);
  WeightView view;
  view.rows = spec.rows();
  view.cols = spec.cols;
  view.segment_count = static_cast<int>(segments.size());
  view.paired = spec.paired;
  for (size_t i = 0; i < segments.size(); ++i) {
    const int run = spec.paired ? 0 : static_cast<int>(i);
    const WeightFormat format = spec.segments[i].format;
    const auto* const scales = reinterpret_cast<const float*>(base + sizes.scales_offset(run));
    view.segments[i] = {.format = format,
                        .rows = spec.segments[i].rows,
                        .data = base + sizes.run_offset(run),
                        .scales = is_quantized(format) ? scales : nullptr,
                        .zeros = nullptr,
                        .group_size = format == WeightFormat::kInt4Group128 ? kInt4Group : 0};
  }
  const PanelMap map(view, pool_.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    pool_.for_each(static_cast<int64_t>(panels_of(segments[i].rows)), true, [&](int64_t panel) {
      pack_panel(segments[i], view.segments[i].format, panel,
                 place_of(view, map, static_cast<int>(i), panel));
    });
  }
  if (spec.has_bias) {
    auto* const values = reinterpret_cast<float*>(base + sizes.bias_offset());
    std::copy(bias.begin(), bias.end(), values);
    std::fill_n(values + bias.size(), kLanes, 0.0f);
    view.bias = values;
  }
  return view;
}

}  // namespace tandem
