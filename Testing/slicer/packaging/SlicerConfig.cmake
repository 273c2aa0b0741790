# A stand-in for Slicer's CMake configuration: enough to configure and install a scripted extension, and stricter.
#
#   cmake -S . -B build -DSlicer_DIR=Testing/slicer/packaging && cmake --install build --prefix somewhere
#
# Like Slicer's it fails on files that do not exist and on unknown arguments. Unlike Slicer's it warns on files that would
# stay behind, and it installs straight from the source, so that nothing needs to be built.

set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/GenerateConfig.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/CPack.cmake)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
