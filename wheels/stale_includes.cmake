# SPDX-License-Identifier: Apache-2.0
# The wheels' message packages export the include directory of the Python that they were built with. CMake refuses a
# directory that does not exist, so it is taken off every imported target once the project is configured.
function(pose_bridge_drop_stale_includes)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      list(FILTER directories EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${directories}")
    endif()
  endforeach()
endfunction()

cmake_language(DEFER CALL pose_bridge_drop_stale_includes)
