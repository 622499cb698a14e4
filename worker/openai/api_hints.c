/* A hint is advice: a client that exaggerates is served like one that said the most there is, and the operator sees it
 * counted. Only a value of the wrong type is refused, because it is a bug of the client that it wants to know of. All numbers
 * are compared as doubles, so that 1e30 is as good an exaggeration as 1e9. */
#include "api_hints.h"

#include "api_limits.h"

#include <math.h>

static const struct {
    const char *name;
    double least, most;
    bool whole;
} table[API_HINTS] = {
    [API_HINT_PRIORITY] = {"priority", INT32_MIN, INT32_MAX, true},
    [API_HINT_STRICT_PRIORITY] = {"strict_priority", 0, API_STRICT_MAX, true},
    [API_HINT_OSL] = {"osl", 1, INT32_MAX, true},
    [API_HINT_LATENCY_SENSITIVITY] = {"latency_sensitivity", 0, 1, false},
    [API_HINT_IAT] = {"iat", 0, API_IAT_MS_MAX, true},
    [API_HINT_PREFIX_ID] = {"prefix_id", 0, API_HINT_BYTES_MAX, true}, /* of its length */
};

const char *api_hint_name(enum api_hint hint)
{
    return table[hint].name;
}

void api_hints_init(struct api_hints *h)
{
    *h = (struct api_hints){.latency_sensitivity = 0.5};
}

static double clamp(struct api_hints *h, enum api_hint hint, double v)
{
    double inside = fmin(fmax(v, table[hint].least), table[hint].most);
    h->clamped |= (uint32_t)(inside != v) << hint;
    return inside;
}

static const cJSON *given(const cJSON *hints, enum api_hint hint)
{
    const cJSON *v = json_get(hints, table[hint].name);
    return cJSON_IsNull(v) ? NULL : v;
}

/* Leaves *out alone when the hint is absent. */
static int take(struct api_hints *h, const cJSON *hints, enum api_hint hint, double *out, struct err *e)
{
    const cJSON *v = given(hints, hint);
    if (!v)
        return ST_OK;
    double d = v->valuedouble;
    bool whole = table[hint].whole;
    if (!cJSON_IsNumber(v) || !isfinite(d) || (whole && d != floor(d)))
        return err_set(e, ST_EINVAL, "%s: expected %s", table[hint].name, whole ? "an integer" : "a number");
    *out = clamp(h, hint, d);
    return ST_OK;
}

/* Too long an id is cut between characters: ids that differ later fall into one group, which is no harm. */
static int take_prefix_id(struct api_hints *h, const cJSON *hints, struct err *e)
{
    int st = json_opt_str(hints, table[API_HINT_PREFIX_ID].name, &h->prefix_id, e);
    size_t n = (size_t)clamp(h, API_HINT_PREFIX_ID, (double)h->prefix_id.n);
    if (n < h->prefix_id.n)
        h->prefix_id.n = utf8_complete((struct str){h->prefix_id.p, n});
    return st;
}

int api_hints_parse(struct api_hints *h, const cJSON *hints, uint32_t priority_max, struct err *e)
{
    double priority = 0, strict = 0, osl = 0, iat = 0;
    int st = take(h, hints, API_HINT_PRIORITY, &priority, e);
    if (!st)
        st = take(h, hints, API_HINT_STRICT_PRIORITY, &strict, e);
    if (!st)
        st = take(h, hints, API_HINT_OSL, &osl, e);
    if (!st)
        st = take(h, hints, API_HINT_LATENCY_SENSITIVITY, &h->latency_sensitivity, e);
    if (!st)
        st = take(h, hints, API_HINT_IAT, &iat, e);
    if (!st)
        st = json_opt_bool(hints, "speculative_prefill", &h->speculative_prefill, e);
    if (!st)
        st = take_prefix_id(h, hints, e);
    if (st)
        return st;
    if (priority_max && fabs(priority) > priority_max) {
        priority = copysign(priority_max, priority);
        h->clamped |= 1u << API_HINT_PRIORITY;
    }
    h->priority = (int32_t)priority;
    h->strict_priority = (int32_t)strict;
    h->osl = (int32_t)osl;
    h->iat_ms = given(hints, API_HINT_IAT) && iat < 1 ? 1 : (int64_t)iat;
    return ST_OK;
}
