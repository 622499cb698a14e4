/* The one symbol of libstator_cuda.so. */
#include "be_plugin.h"
#include "cu_backend.h"

extern const struct be_plugin stator_plugin;

__attribute__((visibility("default"))) const struct be_plugin stator_plugin = {BE_PLUGIN_NUMBERS,
                                                                               .create = cuda_backend_create};
