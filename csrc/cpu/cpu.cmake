# The CPU core as a library of objects: what _cpu and the C++ tests link.
find_package(Threads REQUIRED)
find_package(OpenMP COMPONENTS CXX)
file(GLOB core CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cpp ${CMAKE_CURRENT_LIST_DIR}/passes/*.cpp
     ${CMAKE_CURRENT_LIST_DIR}/products/*.cpp ${CMAKE_CURRENT_LIST_DIR}/runtime/*.cpp)
add_library(geodiff_cpu OBJECT ${core} ${CMAKE_CURRENT_LIST_DIR}/isa/dispatch.cpp)
# -ffp-contract=fast lets a*b+c be one rounding instead of two: more exact, unlike the rest of -ffast-math, which is off.
# -fopenmp-simd reads the `omp simd` reductions where there is no OpenMP runtime.
target_compile_options(geodiff_cpu PUBLIC -O3 -ffp-contract=fast -fopenmp-simd -Wall -Wextra -Wno-psabi)
target_link_libraries(geodiff_cpu PUBLIC Threads::Threads)
if(OpenMP_CXX_FOUND) # the runtime that PyTorch has loaded already serves both: see csrc/cpu/runtime/parallel.h
  target_link_libraries(geodiff_cpu PUBLIC OpenMP::OpenMP_CXX)
endif()

option(GEODIFF_SANITIZE "Build with AddressSanitizer and UndefinedBehaviorSanitizer" OFF)
if(GEODIFF_SANITIZE)
  target_compile_options(geodiff_cpu PUBLIC -fsanitize=address,undefined -fno-omit-frame-pointer -g)
  target_link_options(geodiff_cpu PUBLIC -fsanitize=address,undefined)
endif()

# One translation unit per instruction set, chosen at run time: one build runs on every processor of its kind. The lines
# of targets.def that this compiler can compile for this processor go into compiled_targets.def, which dispatch.cpp reads.
# GEODIFF_MORE_TARGETS names further folders with a targets.def of their own: the C++ tests have one.
set(GEODIFF_MORE_TARGETS "" CACHE STRING "Folders with more instruction sets")
include(CheckCXXCompilerFlag)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(processor x86)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  set(processor arm)
else()
  set(processor other)
endif()
set(compiled "")
foreach(folder ${CMAKE_CURRENT_LIST_DIR}/isa ${GEODIFF_MORE_TARGETS})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${folder}/targets.def)
  file(STRINGS ${folder}/targets.def lines REGEX "^GEODIFF_TARGET")
  foreach(line IN LISTS lines)
    if(NOT line MATCHES "^GEODIFF_TARGET\\(([a-z0-9_]+), ([a-z0-9]+), \"([^\"]*)\", (.*)\\)$")
      message(FATAL_ERROR "${folder}/targets.def: cannot read: ${line}")
    endif()
    set(name ${CMAKE_MATCH_1})
    set(wanted ${CMAKE_MATCH_2})
    separate_arguments(flags UNIX_COMMAND "${CMAKE_MATCH_3}")
    string(REPLACE ";" " " as_one "${flags}")
    check_cxx_compiler_flag("${as_one}" GEODIFF_COMPILES_${name})
    if((wanted STREQUAL "any" OR wanted STREQUAL processor) AND GEODIFF_COMPILES_${name})
      target_sources(geodiff_cpu PRIVATE ${folder}/${name}.cpp)
      set_source_files_properties(${folder}/${name}.cpp PROPERTIES COMPILE_OPTIONS "${flags}")
      string(APPEND compiled "${line}\n")
    endif()
  endforeach()
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/targets/compiled_targets.def CONTENT "${compiled}" @ONLY)
target_include_directories(geodiff_cpu PRIVATE ${CMAKE_BINARY_DIR}/targets)
