/* One pass over the map. Tables say, member by member, what is taken, within which bounds, and what is refused when set; a member
 * in no table is passed over. Values are gathered as they come, in any order, and put together at the end, where they may
 * depend on each other.
 *
 * Stop tokens come in four lists. The engine ends at its stop tokens without showing them, which fits three of the lists and
 * the model's own end tokens. A visible one, and any beside ignore_eos (under which the engine's list is what must not be
 * drawn), is watched for by whoever reads the tokens: `last`. */
#include "dyn_request.h"

#include "api_hints.h"
#include "api_limits.h"
#include "dyn_json.h"
#include "dyn_msgpack.h"
#include "hash.h"
#include "hash64.h"
#include "mem.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

enum { STOPS_MAX = 64, NONE = -1 };

struct stop {
    int32_t token;
    bool visible;
};

struct asked {
    double temperature, top_p, min_p, frequency_penalty, presence_penalty, repetition_penalty, length_penalty,
        jump;
    int64_t max_tokens, min_tokens, n, top_k, seed, logprobs, priority, strict, osl, dp_rank;
    bool has_seed, ignore_eos;
    struct stop stops[STOPS_MAX];
    uint32_t n_stops;
    struct str salt, salt_too, session;
};

struct parse {
    struct asked a;
    struct dyn_request *r;
    const struct dyn_request_limits *limits;
    struct err *e;
    struct dyn_msgpack from; /* before the value at hand */
};

struct field {
    const char *name;
    /* `v` is the value, or the head of it; `m` stands behind that. */
    int (*take)(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m);
    size_t at;          /* in struct asked */
    double least, most; /* of a number; of a list of stop tokens: most = visible */
    const struct field *members;
};

static enum api_hint hint_of(const struct field *f)
{
    return f->at == offsetof(struct asked, priority) ? API_HINT_PRIORITY
           : f->at == offsetof(struct asked, strict) ? API_HINT_STRICT_PRIORITY
                                                     : API_HINT_OSL;
}

static int broken(struct parse *p)
{
    return err_set(p->e, ST_EFORMAT, "the request is cut short");
}

static int wrong(struct parse *p, const struct field *f, const char *expected)
{
    return err_set(p->e, ST_EINVAL, "%s: expected %s", f->name, expected);
}

/* ---- kinds of members -------------------------------------------------------------------------------------------- */

static int walk(struct parse *p, const char *name, const struct field *fields, const struct dyn_value *map,
                struct dyn_msgpack *m);

static int take_map(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m)
{
    return v->type == DYN_MAP ? walk(p, f->name, f->members, v, m) : wrong(p, f, "an object");
}

static void put(struct parse *p, const struct field *f, const void *value, size_t bytes)
{
    memcpy((char *)&p->a + f->at, value, bytes);
}

static bool number(const struct dyn_value *v, double *out)
{
    *out = v->type == DYN_UINT ? (double)v->u : v->type == DYN_INT ? (double)v->i : v->f;
    return (v->type == DYN_UINT || v->type == DYN_INT || v->type == DYN_FLOAT) && isfinite(*out);
}

static int take_num(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m)
{
    double d;
    (void)m;
    if (!number(v, &d))
        return wrong(p, f, "a number");
    if (d < f->least || d > f->most)
        return err_set(p->e, ST_EINVAL, "%s: must be within %g and %g", f->name, f->least, f->most);
    put(p, f, &d, sizeof d);
    return ST_OK;
}

/* A hint that is out of range is moved into it and noted; what is no hint is refused. */
static int take_whole(struct parse *p, const struct field *f, const struct dyn_value *v, bool hint)
{
    double d;
    if (!number(v, &d) || d != floor(d))
        return wrong(p, f, "an integer");
    if (!hint && (d < f->least || d > f->most))
        return err_set(p->e, ST_EINVAL, "%s: must be within %.0f and %.0f", f->name, f->least, f->most);
    int64_t i = (int64_t)fmin(fmax(d, f->least), f->most);
    put(p, f, &i, sizeof i);
    if ((double)i != d)
        p->r->clamped |= 1u << hint_of(f);
    return ST_OK;
}

static int take_int(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m)
{
    (void)m;
    return take_whole(p, f, v, false);
}

static int take_hint(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m)
{
    (void)m;
    return take_whole(p, f, v, true);
}

/* All 64 bits count, as an unsigned or a signed number. */
static int take_seed(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m)
{
    (void)m;
    if (v->type != DYN_UINT && v->type != DYN_INT)
        return wrong(p, f, "an integer");
    p->a.seed = v->type == DYN_INT ? v->i : (int64_t)v->u;
    p->a.has_seed = true;
    return ST_OK;
}

static int take_bool(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m)
{
    (void)m;
    if (v->type != DYN_BOOL)
        return wrong(p, f, "true or false");
    put(p, f, &v->yes, sizeof v->yes);
    return ST_OK;
}

static int take_str(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m)
{
    (void)m;
    if (v->type != DYN_STR)
        return wrong(p, f, "a string");
    if ((double)v->s.n > f->most)
        return err_set(p->e, ST_EINVAL, "%s: longer than %.0f bytes", f->name, f->most);
    put(p, f, &v->s, sizeof v->s);
    return ST_OK;
}

static bool token(const struct parse *p, const struct dyn_value *v)
{
    return v->type == DYN_UINT && v->u < p->limits->vocab_size;
}

static int too_many_stops(struct parse *p, const struct field *f)
{
    return err_set(p->e, ST_EINVAL, "%s: more than %d stop tokens in all", f->name, STOPS_MAX);
}

static int note_stop(struct parse *p, const struct field *f, int32_t id, bool visible)
{
    struct asked *a = &p->a;
    for (uint32_t i = 0; i < a->n_stops; i++)
        if (a->stops[i].token == id) {
            a->stops[i].visible |= visible;
            return ST_OK;
        }
    if (a->n_stops == STOPS_MAX)
        return too_many_stops(p, f);
    a->stops[a->n_stops++] = (struct stop){id, visible};
    return ST_OK;
}

static int take_stops(struct parse *p, const struct field *f, const struct dyn_value *v,
                      struct dyn_msgpack *m)
{
    int st = ST_OK;
    if (v->type != DYN_ARRAY)
        return wrong(p, f, "a list of token ids");
    if (v->count > STOPS_MAX)
        return too_many_stops(p, f);
    for (uint32_t left = v->count; left > 0 && !st; left--) {
        struct dyn_value id;
        if (dyn_msgpack_read(m, &id))
            return broken(p);
        if (!token(p, &id))
            return wrong(p, f, "token ids of this model");
        st = note_stop(p, f, (int32_t)id.u, f->most > 0);
    }
    return st;
}

static int too_long(struct parse *p, uint64_t actual)
{
    p->r->limit = p->limits->context_length;
    p->r->actual = actual;
    return err_set(p->e, ST_ETOOBIG,
                   "This model's maximum context length is %u tokens; the request asks for %llu",
                   p->limits->context_length, (unsigned long long)actual);
}

static int take_prompt(struct parse *p, const struct field *f, const struct dyn_value *v,
                       struct dyn_msgpack *m)
{
    struct dyn_request *r = p->r;
    if (v->type != DYN_ARRAY || v->count == 0)
        return wrong(p, f, "a list of token ids, one at least");
    if (v->count >= p->limits->context_length)
        return too_long(p, v->count);
    if (r->tokens)
        return wrong(p, f, "one list");
    r->tokens = mem_alloc(v->count * sizeof *r->tokens);
    if (!r->tokens)
        return err_set(p->e, ST_ENOMEM, "out of memory");
    for (uint32_t i = 0; i < v->count; i++) {
        struct dyn_value id;
        if (dyn_msgpack_read(m, &id))
            return broken(p);
        if (!token(p, &id))
            return err_set(p->e, ST_EINVAL, "%s[%u]: not a token id of this model, which has %u", f->name, i,
                           p->limits->vocab_size);
        r->tokens[i] = (int32_t)id.u;
    }
    r->engine.n_prompt = v->count;
    return ST_OK;
}

/* Kept as text: what it allows is the grammar's to say. */
static int take_guided(struct parse *p, const struct field *f, const struct dyn_value *v,
                       struct dyn_msgpack *m)
{
    struct buf *text = &p->r->guided;
    *m = p->from;
    if (v->type != DYN_MAP)
        return wrong(p, f, "an object");
    buf_reset(text);
    text->limit = DYN_GUIDED_MAX;
    int st = dyn_json_from_msgpack(m, text);
    if (st == ST_ETOOBIG)
        return err_set(p->e, ST_EINVAL, "%s: longer than %d bytes", f->name, DYN_GUIDED_MAX);
    return st ? err_set(p->e, st, "%s: %s", f->name,
                        st == ST_EFORMAT ? "cannot be written as JSON" : status_text(st))
              : ST_OK;
}

/* false and empty lists ask for nothing, as null does. */
static int refuse(struct parse *p, const struct field *f, const struct dyn_value *v, struct dyn_msgpack *m)
{
    *m = p->from;
    if (dyn_msgpack_skip(m))
        return broken(p);
    bool nothing = (v->type == DYN_BOOL && !v->yes) || (v->type == DYN_ARRAY && !v->count) ||
                   (v->type == DYN_MAP && !v->count);
    return nothing ? ST_OK : err_set(p->e, ST_EUNSUP, "%s: not supported by this worker", f->name);
}

static int refuse_adapter(struct parse *p, const struct field *f, const struct dyn_value *v,
                          struct dyn_msgpack *m)
{
    (void)m;
    if (v->type != DYN_STR)
        return wrong(p, f, "a string");
    return err_set(p->e, ST_ENOENT, "%s: this worker has no adapter of that name", f->name);
}

/* ---- the tables -------------------------------------------------------------------------------------------------- */

#define AT(member) offsetof(struct asked, member)
#define NUM_ROW(name, least, most) {#name, take_num, AT(name), least, most, NULL},

static const struct field stop_conditions[] = {
    {"max_tokens", take_int, AT(max_tokens), 0, INT32_MAX, NULL},
    {"min_tokens", take_int, AT(min_tokens), 0, INT32_MAX, NULL},
    {"ignore_eos", take_bool, AT(ignore_eos), 0, 0, NULL},
    {"stop_token_ids", take_stops, 0, 0, 0, NULL},
    {"stop_token_ids_hidden", take_stops, 0, 0, 0, NULL},
    {"stop_token_ids_visible", take_stops, 0, 0, 1, NULL},
    {"max_thinking_tokens", refuse, 0, 0, 0, NULL},
    {0},
};

static const struct field sampling_options[] = {
    API_NUMS(NUM_ROW) /* */
    {"n", take_int, AT(n), 1, API_CHOICES_MAX, NULL},
    {"top_k", take_int, AT(top_k), -1, 1000000, NULL},
    {"seed", take_seed, 0, 0, 0, NULL},
    {"best_of", refuse, 0, 0, 0, NULL},
    {"use_beam_search", refuse, 0, 0, 0, NULL},
    {"length_penalty", take_num, AT(length_penalty), 1, 1, NULL}, /* of beam search: 1 is none */
    {"guided_decoding", take_guided, 0, 0, 0, NULL},
    {"logit_bias", refuse, 0, 0, 0, NULL},
    {0},
};

static const struct field output_options[] = {
    {"logprobs", take_int, AT(logprobs), 0, API_TOP_LOGPROBS_MAX, NULL},
    {"prompt_logprobs", refuse, 0, 0, 0, NULL},
    {0},
};

static const struct field routing[] = {
    {"priority", take_hint, AT(priority), INT32_MIN, INT32_MAX, NULL},
    {"strict_priority", take_hint, AT(strict), 0, API_STRICT_MAX, NULL},
    {"expected_output_tokens", take_hint, AT(osl), 1, INT32_MAX, NULL},
    {"priority_jump", take_num, AT(jump), -INFINITY, INFINITY, NULL}, /* put_hints moves it */
    {"cache_salt", take_str, AT(salt), 0, API_SALT_BYTES_MAX, NULL},
    {"lora_name", refuse_adapter, 0, 0, 0, NULL},
    {"dp_rank", take_int, AT(dp_rank), 0, 0, NULL},
    {0},
};

static const struct field nvext[] = {{"cache_salt", take_str, AT(salt_too), 0, API_SALT_BYTES_MAX, NULL},
                                     {0}};
static const struct field extra_args[] = {{"nvext", take_map, 0, 0, 0, nvext}, {0}};
static const struct field agent_context[] = {{"session_id", take_str, AT(session), 0, INT32_MAX, NULL}, {0}};

static const struct field request[] = {
    {"token_ids", take_prompt, 0, 0, 0, NULL},
    {"stop_conditions", take_map, 0, 0, 0, stop_conditions},
    {"sampling_options", take_map, 0, 0, 0, sampling_options},
    {"output_options", take_map, 0, 0, 0, output_options},
    {"eos_token_ids", take_stops, 0, 0, 0, NULL},
    {"routing", take_map, 0, 0, 0, routing},
    {"extra_args", take_map, 0, 0, 0, extra_args},
    {"agent_context", take_map, 0, 0, 0, agent_context},
    {"prompt_embeds", refuse, 0, 0, 0, NULL},
    {"multi_modal_data", refuse, 0, 0, 0, NULL},
    {"prefill_result", refuse, 0, 0, 0, NULL},
    {"bootstrap_info", refuse, 0, 0, 0, NULL},
    {"encoder_result", refuse, 0, 0, 0, NULL},
    {0},
};

/* Null is as good as absent. */
static int walk(struct parse *p, const char *name, const struct field *fields, const struct dyn_value *map,
                struct dyn_msgpack *m)
{
    if (map->count > API_FIELDS_MAX)
        return err_set(p->e, ST_EINVAL, "%s: more than %d members", name, API_FIELDS_MAX);
    for (uint32_t left = map->count; left > 0; left--) {
        const struct field *f = fields;
        struct dyn_value key, v;
        if (dyn_msgpack_read(m, &key) || key.type != DYN_STR)
            return broken(p);
        while (f->name && !str_eqz(key.s, f->name))
            f++;
        p->from = *m;
        if (f->name ? dyn_msgpack_read(m, &v) : dyn_msgpack_skip(m))
            return broken(p);
        int st = f->name && v.type != DYN_NIL ? f->take(p, f, &v, m) : ST_OK;
        if (st)
            return st;
    }
    return ST_OK;
}

static int walk_all(struct parse *p, struct dyn_msgpack *m)
{
    struct dyn_value map;
    if (dyn_msgpack_read(m, &map) || map.type != DYN_MAP)
        return err_set(p->e, ST_EFORMAT, "the request is not an object");
    int st = walk(p, "the request", request, &map, m);
    return st || dyn_msgpack_end(m) ? st : err_set(p->e, ST_EFORMAT, "the request has bytes behind its end");
}

/* ---- putting it together ----------------------------------------------------------------------------------------- */

static int put_stops(struct parse *p)
{
    struct dyn_request *r = p->r;
    struct engine_request *g = &r->engine;
    const struct dyn_request_limits *l = p->limits;
    static const struct field own = {.name = "stop_token_ids"};
    int st = ST_OK;
    for (uint32_t i = 0; i < l->n_eog && !p->a.ignore_eos && !st; i++)
        st = note_stop(p, &own, l->eog[i], false);
    for (uint32_t i = 0; i < p->a.n_stops && !st; i++) {
        struct stop s = p->a.stops[i];
        bool watched = s.visible || p->a.ignore_eos;
        if ((watched ? r->n_last : g->n_stop_tokens) == ENGINE_STOP_TOKENS_MAX)
            st = err_set(p->e, ST_EINVAL, "stop_token_ids: more than %d", ENGINE_STOP_TOKENS_MAX);
        else if (watched)
            r->last[r->n_last++] = (struct dyn_last){s.token, s.visible};
        else
            g->stop_tokens[g->n_stop_tokens++] = s.token;
    }
    if (p->a.ignore_eos) {
        assert(l->n_eog <= ENGINE_STOP_TOKENS_MAX);
        memcpy(g->stop_tokens, l->eog, l->n_eog * sizeof *l->eog);
        g->n_stop_tokens = l->n_eog;
        g->ignore_eos = true;
    }
    return st;
}

static int put_lengths(struct parse *p)
{
    struct engine_request *g = &p->r->engine;
    const struct asked *a = &p->a;
    uint32_t room = p->limits->context_length - g->n_prompt;
    if (a->max_tokens == 0)
        return err_set(p->e, ST_EINVAL, "max_tokens: must be 1 at least");
    if (a->max_tokens > (int64_t)room)
        return too_long(p, g->n_prompt + (uint64_t)a->max_tokens);
    g->max_tokens = a->max_tokens == NONE ? room : (uint32_t)a->max_tokens;
    if (a->min_tokens > (int64_t)g->max_tokens)
        return err_set(p->e, ST_EINVAL, "min_tokens: %lld is above the %u that may come",
                       (long long)a->min_tokens, g->max_tokens);
    g->min_tokens = (uint32_t)a->min_tokens;
    return ST_OK;
}

/* A jump in a router's queue speaks for a priority that did not come: a small one is latency sensitivity under its old name,
 * a larger one the seconds that a priority would have been. Compared as doubles, so that none is too large to be moved. */
static void put_hints(struct parse *p)
{
    struct engine_request *g = &p->r->engine;
    const struct asked *a = &p->a;
    double most = p->limits->priority_max ? p->limits->priority_max : INT32_MAX;
    bool given = a->priority != INT64_MIN, jumps = !given && a->jump != 0;
    double priority = given ? (double)a->priority : jumps && a->jump > 1 ? floor(a->jump) : 0;
    double sensitivity = jumps && a->jump <= 1 ? a->jump : 0.5;
    g->priority = (int32_t)fmin(fmax(priority, -most), most);
    g->latency_sensitivity = (float)fmax(sensitivity, 0);
    p->r->clamped |= (uint32_t)(g->priority != priority) << API_HINT_PRIORITY;
    p->r->clamped |= (uint32_t)(sensitivity < 0) << API_HINT_LATENCY_SENSITIVITY;
    g->strict_priority = (int32_t)a->strict;
    g->expected_output_tokens = (int32_t)a->osl;
}

static int put_together(struct parse *p)
{
    struct dyn_request *r = p->r;
    struct engine_request *g = &r->engine;
    const struct asked *a = &p->a;
    if (!r->tokens)
        return err_set(p->e, ST_EINVAL, "token_ids: missing");
    g->prompt = r->tokens;
    g->temperature = (float)a->temperature;
    g->top_p = a->top_p < 1e-6 ? 1e-6f : (float)a->top_p;
    g->min_p = (float)a->min_p;
    g->repetition = (float)a->repetition_penalty;
    g->frequency = (float)a->frequency_penalty;
    g->presence = (float)a->presence_penalty;
    g->top_k = a->top_k > 0 ? (uint32_t)a->top_k : 0;
    g->seed = (uint64_t)a->seed;
    g->n_logprobs = (int32_t)a->logprobs;
    r->has_seed = a->has_seed;
    r->n = (uint32_t)a->n;
    r->session = a->session;
    if (r->session.n > API_HINT_BYTES_MAX)
        r->session.n = utf8_complete((struct str){r->session.p, API_HINT_BYTES_MAX});
    r->salt = a->salt.n ? a->salt : a->salt_too;
    if (r->salt.n) {
        hash_once(r->salt.p, r->salt.n, g->cache_salt);
        g->salt_tag = hash64_salt(r->salt.p, r->salt.n);
    }
    put_hints(p);
    int st = put_lengths(p);
    return st ? st : put_stops(p);
}

int dyn_request_parse(struct dyn_request *r, const uint8_t *body, size_t n_body,
                      const struct dyn_request_limits *limits, struct err *e)
{
    struct parse p = {.r = r,
                      .limits = limits,
                      .e = e,
                      .a = {.temperature = 1,
                            .top_p = 1,
                            .repetition_penalty = 1,
                            .max_tokens = NONE,
                            .n = 1,
                            .priority = INT64_MIN, /* not given */
                            .logprobs = NONE}};
    struct dyn_msgpack m = dyn_msgpack_of(body, n_body);
    int st = walk_all(&p, &m);
    return st ? st : put_together(&p);
}

void dyn_request_fini(struct dyn_request *r)
{
    mem_free(r->tokens);
    buf_fini(&r->guided);
    *r = (struct dyn_request){0};
}
