# Decides whether several GPUs can work together. Asked for by the cache entry TANDEM_NCCL:
#   AUTO  if the library is there (the default)      ON  or stop with an error      OFF  never
# Afterwards the variable TANDEM_NCCL is ON or OFF, and src/comm/CMakeLists.txt chooses its files by it.

set(TANDEM_NCCL AUTO CACHE STRING "Join several GPUs through NCCL: AUTO (if it is found), ON, OFF")
set_property(CACHE TANDEM_NCCL PROPERTY STRINGS AUTO ON OFF)

set(tandem_nccl_wanted ${TANDEM_NCCL})
set(TANDEM_NCCL OFF)
if(TANDEM_CUDA AND (tandem_nccl_wanted STREQUAL "AUTO" OR tandem_nccl_wanted))
  find_package(NCCL 2.18 QUIET MODULE)
  if(NCCL_FOUND)
    set(TANDEM_NCCL ON)
    message(STATUS "tandem: with NCCL ${NCCL_VERSION} (${NCCL_LIBRARY})")
  elseif(tandem_nccl_wanted STREQUAL "AUTO")
    message(STATUS "tandem: one GPU at a time (NCCL not found: install libnccl-dev, or set NCCL_ROOT)")
  endif()
endif()
if(NOT TANDEM_NCCL AND NOT tandem_nccl_wanted STREQUAL "AUTO" AND tandem_nccl_wanted)
  message(FATAL_ERROR "TANDEM_NCCL is ON, but CUDA or NCCL was not found. Configure with -DTANDEM_NCCL=OFF.")
endif()
