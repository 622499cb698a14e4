/* Apart from the engine itself, so that what only speaks of classes links no engine. */
#include "engine.h"

#include <assert.h>

const char *engine_class_name(uint32_t cls)
{
    static const char *const names[ENGINE_CLASSES] = {"background", "normal", "elevated", "high"};
    assert(cls < ENGINE_CLASSES);
    return names[cls];
}
