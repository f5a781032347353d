#include "backend/cpu/isa_tables.h"
#include "tandem/error.h"

// Where the processor is not an x86-64 one, only the portable kernels are compiled.
namespace tandem {

bool has_isa(CpuIsa isa) { return isa == CpuIsa::kPortable; }

const CpuKernels& cpu_kernels(CpuIsa isa) {
  if (!has_isa(isa)) {
    throw UsageError("this machine has no " + std::string(name_of(isa)) + " instructions");
  }
  return kPortableKernels;
}

}  // namespace tandem
