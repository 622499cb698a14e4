/* arch: look-up only; the families stand in arch_*.c. */
#include "arch.h"

#include <string.h>

static const struct arch *const families[] = {&arch_llama};

const struct arch *arch_find(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcmp(families[i]->name, name) == 0)
            return families[i];
    return NULL;
}
