# Slicer writes <Extension>Config.cmake here, for extensions that build on this one.
if(NOT COMMAND slicerMacroBuildScriptedModule)
  message(FATAL_ERROR "include(\${Slicer_USE_FILE}) has to come first")
endif()
