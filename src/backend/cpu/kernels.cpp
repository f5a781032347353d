#include "backend/cpu/kernels.h"

namespace tandem {

std::string_view name_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "AVX2";
    case CpuIsa::kAvx512:
      return "AVX-512";
  }
  return "?";
}

CpuIsa best_isa() {
  for (const CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2}) {
    if (has_isa(isa)) return isa;
  }
  return CpuIsa::kPortable;
}

size_t attention_scratch_floats(int rows, int group, int head_dim) {
  constexpr size_t kQueryFloats = 8;  // pointers and running numbers of a query
  const auto queries = static_cast<size_t>(rows) * static_cast<size_t>(group);
  return queries * (kQueryFloats + static_cast<size_t>(head_dim));
}

}  // namespace tandem
