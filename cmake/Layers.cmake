# The code is built in layers, one object library per folder of src/. tandem_add_layer(NAME core SOURCES … PACKAGES …)
# makes the target tandem_<name>; a layer sees the headers of src/ and include/ and links the packages it names.
set(TANDEM_LAYERS core comm backend model tokenizer plan spec engine bench)

add_library(tandem_flags INTERFACE)
target_include_directories(tandem_flags INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
target_compile_options(tandem_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion>"
  "$<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor;-Woverloaded-virtual>")
# One rounding per operation: contraction of a*b+c would depend on the compiler's choice, and so would the bits of a row.
target_compile_options(tandem_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(tandem_flags INTERFACE -Wno-restrict)  # false alarms on string concatenation (GCC bug 105651)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND TANDEM_SANITIZE)
  # false alarms inside <regex> when instrumented (GCC bug 105562); builds without sanitizers keep the warning
  target_compile_options(tandem_flags INTERFACE -Wno-maybe-uninitialized)
endif()
if(TANDEM_WARNINGS_AS_ERRORS)
  target_compile_options(tandem_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(TANDEM_BUILD_FUZZERS)
  target_compile_options(tandem_flags INTERFACE -fsanitize=fuzzer-no-link)  # counts branches for libFuzzer
  if(NOT TANDEM_SANITIZE)
    set(TANDEM_SANITIZE address,undefined)
  endif()
endif()
if(TANDEM_SANITIZE)
  target_compile_options(tandem_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${TANDEM_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  target_link_options(tandem_flags INTERFACE -fsanitize=${TANDEM_SANITIZE})
endif()

function(tandem_add_layer)
  cmake_parse_arguments(LAYER "" "NAME" "SOURCES;PACKAGES" ${ARGN})
  if(NOT LAYER_SOURCES)  # a layer of headers alone
    add_library(tandem_${LAYER_NAME} INTERFACE)
    return()
  endif()
  set_property(GLOBAL APPEND PROPERTY TANDEM_PACKAGES ${LAYER_PACKAGES})  # what the whole library links in the end
  add_library(tandem_${LAYER_NAME} OBJECT ${LAYER_SOURCES})
  target_link_libraries(tandem_${LAYER_NAME} PRIVATE tandem_flags PUBLIC ${LAYER_PACKAGES})
endfunction()

# tandem_add_test(NAME tokenizer_tests SOURCES a.cpp b.cpp LAYERS core tokenizer [LABELS …])
# links the objects of the layers it names and registers the program with CTest.
function(tandem_add_test)
  cmake_parse_arguments(TEST "" "NAME" "SOURCES;LAYERS;LABELS" ${ARGN})
  add_executable(${TEST_NAME} ${TEST_SOURCES})
  target_link_libraries(${TEST_NAME} PRIVATE tandem_flags tandem_test_support Threads::Threads nlohmann_json::nlohmann_json)
  foreach(layer IN LISTS TEST_LAYERS)
    target_link_libraries(${TEST_NAME} PRIVATE tandem_${layer})
  endforeach()
  target_compile_definitions(${TEST_NAME} PRIVATE TANDEM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${TEST_NAME} COMMAND ${TEST_NAME})
  # Loads of several processes wait for each other; suites that run side by side need not.
  set(lock_folder ${PROJECT_BINARY_DIR}/locks/${TEST_NAME})
  file(MAKE_DIRECTORY ${lock_folder})
  set_tests_properties(${TEST_NAME} PROPERTIES LABELS "${TEST_LABELS}" TIMEOUT 1200
                                               ENVIRONMENT "XDG_RUNTIME_DIR=${lock_folder}")
endfunction()
