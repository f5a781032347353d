# Decides whether the CUDA backend is part of this build. Asked for by the cache entry TANDEM_CUDA:
#   AUTO  if the toolkit is there (the default)      ON  or stop with an error      OFF  never
# Afterwards the variable TANDEM_CUDA is ON or OFF, and src/backend/CMakeLists.txt chooses its files by it.

set(TANDEM_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (if the toolkit is found), ON, OFF")
set_property(CACHE TANDEM_CUDA PROPERTY STRINGS AUTO ON OFF)

set(tandem_cuda_wanted ${TANDEM_CUDA})
set(tandem_cuda_off_because "")
if(tandem_cuda_wanted STREQUAL "AUTO" OR tandem_cuda_wanted)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(tandem_cuda_off_because "no CUDA toolkit found")
  elseif(NOT EXISTS ${PROJECT_SOURCE_DIR}/kernels/CMakeLists.txt)
    set(tandem_cuda_off_because "${CMAKE_CUDA_COMPILER} is there, but this version of tandem has no CUDA backend")
  endif()
else()
  set(tandem_cuda_off_because "TANDEM_CUDA is OFF")
endif()

if(NOT tandem_cuda_off_because)
  # This machine's, or Hopper's where no GPU is to be seen. What kernels lay out follows from what they were compiled for,
  # so that 80-virtual makes any GPU run those of compute capability 8.0: a way to test them.
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    execute_process(COMMAND nvidia-smi -L OUTPUT_QUIET ERROR_QUIET RESULT_VARIABLE tandem_no_gpu)
    if(tandem_no_gpu EQUAL 0)
      set(CMAKE_CUDA_ARCHITECTURES native)
    else()
      set(CMAKE_CUDA_ARCHITECTURES 90)
    endif()
  endif()
  enable_language(CUDA)
  set(tandem_oldest_cuda 12.8)  # PTX 8.6 and limits of registers
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS tandem_oldest_cuda)
    set(tandem_cuda_off_because
      "${CMAKE_CUDA_COMPILER} is of CUDA ${CMAKE_CUDA_COMPILER_VERSION}, older than ${tandem_oldest_cuda}")
  endif()
endif()

if(NOT tandem_cuda_off_because)
  set(CMAKE_CUDA_STANDARD 17)  # the kernels need no more, and CMake 3.25 knows no newer one of nvcc's
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  find_package(CUDAToolkit REQUIRED)
  set(TANDEM_CUDA ON)
  message(STATUS "tandem: with CUDA ${CUDAToolkit_VERSION} (${CMAKE_CUDA_COMPILER})")
elseif(tandem_cuda_wanted STREQUAL "AUTO" OR NOT tandem_cuda_wanted)
  set(TANDEM_CUDA OFF)
  message(STATUS "tandem: CPU only (${tandem_cuda_off_because})")
else()
  message(FATAL_ERROR "TANDEM_CUDA is ON, but ${tandem_cuda_off_because}. Configure with -DTANDEM_CUDA=OFF.")
endif()
