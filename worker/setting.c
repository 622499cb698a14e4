/* Values are parsed strictly ("8k" is 8,192; "8x", "-1" and "" are refused), because a mistyped limit that silently became 0 is
 * found much later and by somebody else. */
#include "setting.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *field(struct config *c, const struct setting *s)
{
    return (char *)c + s->offset;
}

static const void *value_of(const struct config *c, const struct setting *s)
{
    return (const char *)c + s->offset;
}

static const char *const suffixes = "kmgt";

static bool parse_number(const char *text, bool size, uint64_t *out)
{
    if (!isdigit((unsigned char)*text))
        return false;
    uint64_t v = 0;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
            return false;
    const char *suffix = *text ? strchr(suffixes, tolower((unsigned char)*text)) : NULL;
    if (size && suffix && text[1] == 0) {
        int shift = 10 * (int)(suffix - suffixes + 1);
        if (v > UINT64_MAX >> shift)
            return false;
        v <<= shift;
        text++;
    }
    *out = v;
    return *text == 0;
}

/* Whole numbers, each above the one before it, separated by commas. */
static bool parse_steps(const char *text, const struct setting *s, uint32_t out[CONFIG_STEPS])
{
    uint64_t least = s->min;
    for (int i = 0; i < CONFIG_STEPS; i++) {
        char one[16];
        size_t n = strcspn(text, ",");
        uint64_t v;
        if (n >= sizeof one || (text[n] == ',') != (i + 1 < CONFIG_STEPS))
            return false;
        memcpy(one, text, n);
        one[n] = 0;
        if (!parse_number(one, false, &v) || v < least || v > s->max)
            return false;
        out[i] = (uint32_t)v;
        least = v + 1;
        text += n + 1;
    }
    return true;
}

static const char *find_choice(const char *choices, const char *value, size_t n)
{
    for (const char *at = choices; *at;) {
        size_t len = strcspn(at, "|");
        if (len == n && memcmp(at, value, n) == 0)
            return at;
        at += len + (at[len] == '|');
    }
    return NULL;
}

static bool parse_flag(const char *value, bool *out)
{
    static const char *const yes[] = {"1", "true", "yes", "on"}, *const no[] = {"0", "false", "no", "off",
                                                                                ""};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        if (strcmp(value, yes[i]) == 0)
            return *out = true;
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (strcmp(value, no[i]) == 0) {
            *out = false;
            return true;
        }
    return false;
}

int setting_set(struct config *c, const struct setting *s, const char *from, const char *value, struct err *e)
{
    switch (s->type) {
    case SETTING_STRING:
    case SETTING_SECRET:
        if (*value == 0)
            return err_set(e, ST_EINVAL, "%s: empty value", from);
        *(const char **)field(c, s) = value;
        return ST_OK;
    case SETTING_FLAG:
        if (!parse_flag(value, field(c, s)))
            return err_set(e, ST_EINVAL, "%s: '%s' is neither true nor false", from, value);
        return ST_OK;
    case SETTING_CHOICE:
        if (!find_choice(s->unit, value, strlen(value)))
            return err_set(e, ST_EINVAL, "%s: '%s' is none of %s", from, value, s->unit);
        *(const char **)field(c, s) = value;
        return ST_OK;
    case SETTING_PORT: {
        uint64_t v;
        bool none = strcmp(value, "-1") == 0;
        if (!none && (!parse_number(value, false, &v) || v > s->max))
            return err_set(e, ST_EINVAL, "%s: '%s' is neither a port nor -1", from, value);
        *(int64_t *)field(c, s) = none ? -1 : (int64_t)v;
        return ST_OK;
    }
    case SETTING_FRACTION: {
        char *end;
        double v = strtod(value, &end);
        if (end == value || *end || !(v >= (double)s->min / 100 && v <= (double)s->max / 100))
            return err_set(e, ST_EINVAL, "%s: '%s' is no number within %s", from, value, s->unit);
        *(double *)field(c, s) = v;
        return ST_OK;
    }
    case SETTING_STEPS:
        if (!parse_steps(value, s, field(c, s)))
            return err_set(e, ST_EINVAL,
                           "%s: '%s' is not %d ascending whole numbers within %llu..%llu, as %s", from, value,
                           CONFIG_STEPS, (unsigned long long)s->min, (unsigned long long)s->max, s->initial);
        return ST_OK;
    case SETTING_NUMBER:
    case SETTING_SIZE: {
        uint64_t v;
        if (!parse_number(value, s->type == SETTING_SIZE, &v))
            return err_set(e, ST_EINVAL, "%s: '%s' is not a whole number%s", from, value,
                           s->type == SETTING_SIZE ? " (with K, M, G or T if you like)" : "");
        if (v < s->min || v > s->max)
            return err_set(e, ST_EINVAL, "%s: %s is outside %llu..%llu", from, value,
                           (unsigned long long)s->min, (unsigned long long)s->max);
        *(uint64_t *)field(c, s) = v;
        return ST_OK;
    }
    }
    return ST_EINTERNAL;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool is_initial(const struct setting *s, const struct config *c)
{
    struct config initial = {0};
    if (s->initial && setting_set(&initial, s, s->name, s->initial, NULL))
        return false;
    const void *a = value_of(c, s), *b = value_of(&initial, s);
    switch (s->type) {
    case SETTING_STRING:
    case SETTING_SECRET:
    case SETTING_CHOICE:
        return same_text(*(const char *const *)a, *(const char *const *)b);
    case SETTING_FLAG:
        return memcmp(a, b, sizeof(bool)) == 0;
    case SETTING_FRACTION:
        return *(const double *)a == *(const double *)b;
    case SETTING_STEPS:
        return memcmp(a, b, sizeof c->priority_classes) == 0;
    case SETTING_NUMBER:
    case SETTING_SIZE:
    case SETTING_PORT:
        return memcmp(a, b, sizeof(uint64_t)) == 0;
    }
    return false;
}

bool setting_show(const struct setting *s, const struct config *c, char out[SETTING_TEXT_MAX])
{
    const void *v = value_of(c, s);
    const char *text = "(hidden)";
    if (is_initial(s, c))
        return false;
    switch (s->type) {
    case SETTING_STRING:
    case SETTING_CHOICE:
        text = *(const char *const *)v;
        break;
    case SETTING_SECRET:
        break;
    case SETTING_FLAG:
        text = "true";
        break;
    case SETTING_FRACTION:
        snprintf(out, SETTING_TEXT_MAX, "%g", *(const double *)v);
        return true;
    case SETTING_STEPS: {
        const uint32_t *n = v;
        snprintf(out, SETTING_TEXT_MAX, "%u,%u,%u", n[0], n[1], n[2]);
        return true;
    }
    case SETTING_NUMBER:
    case SETTING_SIZE:
        snprintf(out, SETTING_TEXT_MAX, "%llu", (unsigned long long)*(const uint64_t *)v);
        return true;
    case SETTING_PORT:
        snprintf(out, SETTING_TEXT_MAX, "%lld", (long long)*(const int64_t *)v);
        return true;
    }
    snprintf(out, SETTING_TEXT_MAX, "%s", text);
    return true;
}
