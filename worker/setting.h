/* setting: one setting of the configuration: its name, its bounds, and its value, read from text and shown as text.
 *
 * Owns     nothing: a string stays where it came from.
 * Units    those that the setting names.
 * States   -
 * Threads  any.
 * Errors   ST_EINVAL naming the setting as it was written, the value and what was expected.
 * Bounds   numbers: `min` and `max`.
 * Source   -
 */
#ifndef STATOR_SETTING_H
#define STATOR_SETTING_H

#include "config.h"

#include <stddef.h>

enum { SETTING_TEXT_MAX = 4096 };

enum setting_type {
    SETTING_STRING,
    SETTING_SECRET,
    SETTING_NUMBER,
    SETTING_SIZE, /* a number that may have a suffix */
    SETTING_FRACTION,
    SETTING_FLAG,
    SETTING_CHOICE,
    SETTING_STEPS, /* CONFIG_STEPS ascending numbers */
    SETTING_PORT   /* -1 is none */
};

struct setting {
    const char *name; /* without dashes */
    enum setting_type type;
    size_t offset;       /* in struct config */
    const char *initial; /* default, as text; NULL = unset */
    uint64_t min, max;   /* of a fraction in hundredths */
    const char *unit;    /* or the choices, separated by '|' */
    const char *help;
};

/* `from` is how the user wrote the name: "--port" or "STATOR_PORT". */
int setting_set(struct config *c, const struct setting *s, const char *from, const char *value,
                struct err *e);
/* The value, secrets hidden, long ones cut; false: it is the default. */
bool setting_show(const struct setting *s, const struct config *c, char out[SETTING_TEXT_MAX]);

#endif
