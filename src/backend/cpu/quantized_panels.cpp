#include <algorithm>
#include <cmath>

#include "backend/cpu/packing.h"
#include "backend/cuda/quantization.h"

// Panels of the quantised formats, whose codes and scales backend/cuda/quantization.h defines.
namespace tandem {
namespace {

/// Inputs that share a scale.
int64_t group_of(WeightFormat format, int64_t cols) {
  return format == WeightFormat::kInt4Group128 ? kInt4Group : cols;
}

float scale_of(WeightFormat format, const HostMatrix& host, int64_t row, int64_t begin,
               int64_t end) {
  float low = 0, high = 0;
  for (int64_t col = begin; col < end; ++col) {
    low = std::fmin(low, host_element(host, row, col));
    high = std::fmax(high, host_element(host, row, col));
  }
  if (format == WeightFormat::kInt4Group128) return int4_scale(low, high);
  return fp8_scale(std::fmax(-low, high));
}

std::byte* line_at(const PanelPlace& place, int64_t col) {
  return place.first_line + col / 2 * place.line_stride;
}

/// The byte of an fp8 code.
std::byte& fp8_at(const PanelPlace& place, int lane, int64_t col) {
  return line_at(place, col)[col % 2 * kLanes + lane];
}

void put_int4(const PanelPlace& place, int lane, int64_t col, uint8_t code) {
  std::byte& pair = line_at(place, col)[lane];
  const bool odd = col % 2 != 0;
  const auto kept = pair & std::byte(odd ? 0x0f : 0xf0);
  pair = kept | std::byte(odd ? code << 4 : code);
}

uint8_t int4_at(const PanelPlace& place, int lane, int64_t col) {
  const auto pair = std::to_integer<unsigned>(line_at(place, col)[lane]);
  return static_cast<uint8_t>(col % 2 != 0 ? pair >> 4 : pair & 15u);
}

}  // namespace

int64_t scales_of_panel(WeightFormat format, int64_t cols) {
  if (!is_quantized(format)) return 0;
  const int64_t group = group_of(format, cols);
  return (cols + group - 1) / group * kLanes;
}

void pack_quantized_panel(const HostMatrix& host, WeightFormat format, int64_t panel,
                          const PanelPlace& place) {
  const bool int4 = format == WeightFormat::kInt4Group128;
  const int64_t first = panel * kLanes;
  const auto rows = static_cast<int>(std::min<int64_t>(kLanes, host.rows - first));
  const int64_t group = group_of(format, host.cols);
  std::fill_n(place.scales, scales_of_panel(format, host.cols), 0.0f);
  for (int64_t begin = 0; begin < host.cols; begin += group) {
    const int64_t end = std::min(begin + group, host.cols);
    for (int lane = 0; lane < rows; ++lane) {
      const float scale = scale_of(format, host, first + lane, begin, end);
      const float inverse = inverse_scale(scale);
      place.scales[begin / group * kLanes + lane] = scale;
      for (int64_t col = begin; col < end; ++col) {
        const float scaled = host_element(host, first + lane, col) * inverse;
        if (int4) {
          put_int4(place, lane, col, int4_code(scaled));
        } else {
          fp8_at(place, lane, col) = std::byte(fp8_code(scaled));
        }
      }
    }
  }
}

void unpack_quantized_lane(const PanelPlace& place, WeightFormat format, int lane, int64_t cols,
                           float* out) {
  const bool int4 = format == WeightFormat::kInt4Group128;
  const int64_t group = group_of(format, cols);
  for (int64_t col = 0; col < cols; ++col) {
    const float scale = place.scales[col / group * kLanes + lane];
    out[col] = scale * (int4 ? int4_value(int4_at(place, lane, col))
                             : fp8_value(std::to_integer<uint8_t>(fp8_at(place, lane, col))));
  }
}

}  // namespace tandem
