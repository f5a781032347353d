#include <nvtx3/nvToolsExt.h>

#include "backend/cuda/cuda_backend.h"

namespace tandem {

void CudaBackend::begin_range(const char* name, int64_t number) {
  nvtxEventAttributes_t attributes = {};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
  attributes.message.ascii = name;
  attributes.payloadType = NVTX_PAYLOAD_TYPE_INT64;
  attributes.payload.llValue = number;
  nvtxRangePushEx(&attributes);
}

void CudaBackend::end_range() noexcept { nvtxRangePop(); }

}  // namespace tandem
