# What `cmake --install` lays down: the library with its headers, a package for find_package(tandem), the command, the
# ready configurations and the demonstration pair. Below the prefix, configs/ and models/ keep their relative places.

include(CMakePackageConfigHelpers)
set(TANDEM_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/tandem)
set(TANDEM_DATA_DIR ${CMAKE_INSTALL_DATADIR}/tandem)

install(TARGETS tandem EXPORT tandemTargets)
install(DIRECTORY include/tandem DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT tandemTargets NAMESPACE tandem:: DESTINATION ${TANDEM_CMAKE_DIR})

get_target_property(tandem_kind tandem TYPE)
string(COMPARE EQUAL ${tandem_kind} STATIC_LIBRARY TANDEM_IS_STATIC)
configure_package_config_file(cmake/tandemConfig.cmake.in tandemConfig.cmake
                              INSTALL_DESTINATION ${TANDEM_CMAKE_DIR} PATH_VARS TANDEM_DATA_DIR)
write_basic_package_version_file(tandemConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tandemConfig.cmake ${PROJECT_BINARY_DIR}/tandemConfigVersion.cmake
              cmake/FindNCCL.cmake
        DESTINATION ${TANDEM_CMAKE_DIR})

if(TARGET tandem_cli)
  if(NOT TANDEM_IS_STATIC)
    set_target_properties(tandem_cli PROPERTIES INSTALL_RPATH $ORIGIN/../${CMAKE_INSTALL_LIBDIR})
  endif()
  install(TARGETS tandem_cli)
endif()
install(DIRECTORY configs DESTINATION ${TANDEM_DATA_DIR})
install(DIRECTORY models/demo DESTINATION ${TANDEM_DATA_DIR}/models)
