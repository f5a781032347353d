# Installs BUILD_DIR below a temporary prefix, builds examples/ against what was installed, and runs the result from a
# folder that has nothing to do with the source tree.
cmake_policy(VERSION 3.25)
set(work ${BUILD_DIR}/installed_package)
set(prefix ${work}/prefix)
file(REMOVE_RECURSE ${work})
file(MAKE_DIRECTORY ${work}/elsewhere)

function(run what)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${work}/elsewhere RESULT_VARIABLE status
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  message(STATUS "${what}\n${output}")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${what} failed: ${status}")
  endif()
endfunction()

run("Installing" ${CMAKE_COMMAND} --install ${BUILD_DIR} --config ${CONFIG} --prefix ${prefix})
run("Configuring examples/" ${CMAKE_COMMAND} -S ${SOURCE_DIR}/examples -B ${work}/examples -G ${GENERATOR}
    -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_BUILD_TYPE=${CONFIG} -DCMAKE_CXX_COMPILER=${CXX_COMPILER}
    -DCMAKE_CXX_COMPILER_LAUNCHER=${CXX_COMPILER_LAUNCHER})
run("Building examples/" ${CMAKE_COMMAND} --build ${work}/examples --config ${CONFIG})

file(STRINGS ${work}/examples/CMakeCache.txt found REGEX "^tandem_DIR:")
if(NOT found MATCHES "=${prefix}/")
  message(FATAL_ERROR "examples/ found another tandem than the installed one: ${found}")
endif()

set(config ${prefix}/share/tandem/configs/demo.json)
run("The installed command" ${prefix}/bin/tandem generate --config ${config} --prompt "def add(a, b):" --max-tokens 8)
run("The first example" ${work}/examples/example_generate ${config} "def add(a, b):")
run("The second example" ${work}/examples/example_stream_and_cancel ${config} "def add(a, b):" 50)
file(REMOVE_RECURSE ${work})
