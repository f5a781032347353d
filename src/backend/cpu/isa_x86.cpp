#include <cpuid.h>

#include "backend/cpu/isa_tables.h"
#include "tandem/error.h"

// Choice of kernels on x86-64 machines; isa_other.cpp takes this file's place elsewhere.
namespace tandem {
namespace {

bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

bool has_isa(CpuIsa isa) {
  // These builtins ask the operating system too: it must save the wide registers.
  __builtin_cpu_init();
  switch (isa) {
    case CpuIsa::kPortable:
      return true;
    case CpuIsa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case CpuIsa::kAvx512:
      return has_isa(CpuIsa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
  }
  return false;
}

const CpuKernels& cpu_kernels(CpuIsa isa) {
  if (!has_isa(isa)) {
    throw UsageError("this machine has no " + std::string(name_of(isa)) + " instructions");
  }
  switch (isa) {
    case CpuIsa::kAvx512:
      return kAvx512Kernels;
    case CpuIsa::kAvx2:
      return kAvx2Kernels;
    case CpuIsa::kPortable:
      break;
  }
  return kPortableKernels;
}

}  // namespace tandem
