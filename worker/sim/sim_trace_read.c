/* Traces come from anywhere, so every number has its bounds in one table, every refusal names line and field, and what one line
 * asks for never makes more work than its length: counts of pieces follow from arrays that are there.
 *
 * Mooncake's timestamps stand on a grid of some seconds. Played back like that, each tick is a burst that never was: arrivals
 * are spread over their cell, by seed. A cell ends where the next
 * timestamp stands. */
#include "sim_trace.h"

#include "clock.h"
#include "json.h"
#include "mem.h"
#include "sim_rand.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { HASH_TOKENS = 512 };

static const int64_t spread_max_ns = (int64_t)10 * NS_PER_S;
static const int64_t time_max_ms = (int64_t)366 * 24 * 3600 * 1000, id_max = (int64_t)1 << 53;

/* A field of a line, in both forms. */
enum field {
    F_TIMESTAMP,
    F_INPUT,
    F_OUTPUT,
    F_T_MS,
    F_PROMPT,
    F_OUT,
    F_PRIORITY,
    F_STRICT,
    F_OSL,
    F_IAT,
    F_CONV,
    FIELDS
};

static const struct {
    const char *name;
    int64_t min, max;
    bool needed;
} fields[FIELDS] = {
    [F_TIMESTAMP] = {"timestamp", 0, time_max_ms, true},
    [F_INPUT] = {"input_length", 1, SIM_TRACE_TOKENS_MAX, true},
    [F_OUTPUT] = {"output_length", 1, SIM_TRACE_TOKENS_MAX, true},
    [F_T_MS] = {"t_ms", 0, time_max_ms, true},
    [F_PROMPT] = {"prompt_tokens", 1, SIM_TRACE_TOKENS_MAX, true},
    [F_OUT] = {"output_tokens", 1, SIM_TRACE_TOKENS_MAX, true},
    [F_PRIORITY] = {"priority", INT32_MIN, INT32_MAX, false},
    [F_STRICT] = {"strict", 0, INT32_MAX, false},
    [F_OSL] = {"osl", 0, SIM_TRACE_TOKENS_MAX, false},
    [F_IAT] = {"iat", 0, time_max_ms, false},
    [F_CONV] = {"conv", 0, id_max, false},
};

/* Conversations met so far: open addressing over (id, last request), twice as large as it is full. */
struct convs {
    struct conv {
        int64_t id;
        uint32_t last;
        bool used;
    } * table; /* [cap] */
    uint32_t n, cap;
};

struct reader {
    struct sim_trace *t;
    struct convs convs;
    struct sim_text *texts; /* [SIM_TRACE_LINE_MAX / 2] */
    uint32_t line;
    uint32_t n_mooncake;
};

static int field(const cJSON *j, enum field f, int64_t *out, struct err *e)
{
    return fields[f].needed ? json_need_int(j, fields[f].name, fields[f].min, fields[f].max, out, e)
                            : json_opt_int(j, fields[f].name, fields[f].min, fields[f].max, out, e);
}

/* ---- conversations ------------------------------------------------------------------------------------------------- */

static struct conv *conv_at(struct convs *c, int64_t id)
{
    uint32_t i = (uint32_t)sim_mix((uint64_t)id, 1) & (c->cap - 1);
    while (c->table[i].used && c->table[i].id != id)
        i = (i + 1) & (c->cap - 1);
    return &c->table[i];
}

static int conv_grow(struct convs *c, struct err *e)
{
    struct convs bigger = {.cap = c->cap ? c->cap * 2 : 64};
    bigger.table = mem_zalloc(bigger.cap, sizeof *bigger.table);
    if (!bigger.table)
        return err_set(e, ST_ENOMEM, "trace: no memory for %u conversations", bigger.cap);
    for (uint32_t i = 0; i < c->cap; i++)
        if (c->table[i].used)
            *conv_at(&bigger, c->table[i].id) = c->table[i];
    bigger.n = c->n;
    mem_free(c->table);
    *c = bigger;
    return ST_OK;
}

/* The turn before this one, and this one in its place. */
static int conv_next(struct convs *c, int64_t id, uint32_t request, uint32_t *before, struct err *e)
{
    int rc = 2 * c->n >= c->cap ? conv_grow(c, e) : ST_OK;
    if (rc != ST_OK)
        return rc;
    struct conv *v = conv_at(c, id);
    *before = v->used ? v->last : SIM_NONE;
    c->n += !v->used;
    *v = (struct conv){.id = id, .last = request, .used = true};
    return ST_OK;
}

/* ---- the two forms --------------------------------------------------------------------------------------------------- */

static int hash_id(const cJSON *j, uint64_t *out, struct err *e)
{
    if (!cJSON_IsNumber(j) || j->valuedouble < 0 || j->valuedouble > (double)id_max ||
        j->valuedouble != (double)(int64_t)j->valuedouble)
        return err_set(e, ST_EINVAL, "expected whole numbers from 0 to %lld", (long long)id_max);
    *out = (uint64_t)j->valuedouble;
    return ST_OK;
}

static int read_mooncake(struct reader *d, const cJSON *j, struct err *e)
{
    int64_t at_ms = 0, n_prompt = 0, n_output = 0;
    struct err why = {0};
    int rc = field(j, F_TIMESTAMP, &at_ms, e);
    rc = rc ? rc : field(j, F_INPUT, &n_prompt, e);
    rc = rc ? rc : field(j, F_OUTPUT, &n_output, e);
    if (rc != ST_OK)
        return rc;
    const cJSON *ids = json_get(j, "hash_ids"), *x;
    uint32_t want = (uint32_t)((n_prompt + HASH_TOKENS - 1) / HASH_TOKENS), n = 0;
    if (!cJSON_IsArray(ids))
        return err_set(e, ST_EINVAL, "hash_ids: expected an array");
    cJSON_ArrayForEach(x, ids)
    {
        uint64_t id;
        if (n == want || hash_id(x, &id, &why) != ST_OK)
            return err_set(e, ST_EINVAL, "hash_ids: %s",
                           n == want ? "more than one per 512 tokens" : why.text);
        d->texts[n++] = (struct sim_text){.id = sim_mix(0x68617368, id), .n = HASH_TOKENS};
    }
    if (n < want)
        return err_set(e, ST_EINVAL, "hash_ids: %u for %lld tokens, one per 512 is expected", n,
                       (long long)n_prompt);
    d->n_mooncake++;
    struct sim_request r = {.at_ns = at_ms * NS_PER_MS,
                            .n_prompt = (uint32_t)n_prompt,
                            .n_output = (uint32_t)n_output,
                            .parent = SIM_NONE,
                            .sensitivity = 0.5f,
                            .flow = SIM_NONE};
    return sim_trace_add(d->t, &r, d->texts, n, e);
}

/* "share": [[text id, tokens], ...]: what the prompt begins with. */
static int read_shares(struct reader *d, const cJSON *j, uint32_t *n_out, struct err *e)
{
    const cJSON *list = json_get(j, "share"), *pair;
    struct err why = {0};
    uint32_t n = 0;
    if (list && !cJSON_IsNull(list) && !cJSON_IsArray(list))
        return err_set(e, ST_EINVAL, "share: expected an array");
    cJSON_ArrayForEach(pair, list)
    {
        uint64_t id, tokens;
        if (n == SIM_TRACE_SHARES_MAX)
            return err_set(e, ST_EINVAL, "share: more than %d texts", SIM_TRACE_SHARES_MAX);
        if (!cJSON_IsArray(pair) || cJSON_GetArraySize(pair) != 2)
            return err_set(e, ST_EINVAL, "share[%u]: expected [text id, tokens]", n);
        if (hash_id(pair->child, &id, &why) != ST_OK || hash_id(pair->child->next, &tokens, &why) != ST_OK)
            return err_set(e, ST_EINVAL, "share[%u]: %s", n, why.text);
        if (tokens < 1 || tokens > SIM_TRACE_TOKENS_MAX)
            return err_set(e, ST_EINVAL, "share[%u]: %llu tokens, 1 to %d are expected", n,
                           (unsigned long long)tokens, SIM_TRACE_TOKENS_MAX);
        d->texts[n++] = (struct sim_text){.id = sim_mix(0x7368617265, id), .n = (uint32_t)tokens};
    }
    *n_out = n;
    return ST_OK;
}

static int read_own(struct reader *d, const cJSON *j, struct err *e)
{
    int64_t v[FIELDS] = {[F_CONV] = -1};
    double l = 0.5;
    uint32_t n = 0;
    int rc = ST_OK;
    for (int f = F_T_MS; f < FIELDS && rc == ST_OK; f++)
        rc = field(j, (enum field)f, &v[f], e);
    rc = rc ? rc : json_opt_num(j, "l", 0, 1, &l, e);
    rc = rc ? rc : read_shares(d, j, &n, e);
    if (rc != ST_OK)
        return rc;
    struct sim_request r = {.at_ns = v[F_T_MS] * NS_PER_MS,
                            .n_prompt = (uint32_t)v[F_PROMPT],
                            .n_output = (uint32_t)v[F_OUT],
                            .parent = SIM_NONE,
                            .priority = (int32_t)v[F_PRIORITY],
                            .strict = (int32_t)v[F_STRICT],
                            .osl = (uint32_t)v[F_OSL],
                            .iat_ms = v[F_IAT],
                            .sensitivity = (float)l,
                            .flow = SIM_NONE};
    if (v[F_CONV] >= 0)
        rc = conv_next(&d->convs, v[F_CONV], d->t->n, &r.parent, e);
    if (r.parent != SIM_NONE) {
        r.after = r.parent;
        r.n_after = 1;
    }
    d->texts[n++] = (struct sim_text){.id = sim_mix(sim_mix(d->t->seed, 0x6f776e), d->t->n), .n = r.n_prompt};
    return rc ? rc : sim_trace_add(d->t, &r, d->texts, n, e);
}

static int read_line(struct reader *d, struct str line, struct err *e)
{
    cJSON *j = NULL;
    struct err why = {0};
    if (line.n > SIM_TRACE_LINE_MAX)
        return err_set(e, ST_EINVAL, "line %u: longer than %d bytes", d->line, SIM_TRACE_LINE_MAX);
    int rc = json_parse(&j, line, &why);
    if (rc == ST_OK && json_get(j, "timestamp"))
        rc = read_mooncake(d, j, &why);
    else if (rc == ST_OK && json_get(j, "t_ms"))
        rc = read_own(d, j, &why);
    else if (rc == ST_OK)
        rc = err_set(&why, ST_EINVAL, "neither timestamp nor t_ms");
    json_free(j);
    return rc == ST_OK ? ST_OK : err_set(e, rc, "line %u: %s", d->line, why.text);
}

/* ---- a file ---------------------------------------------------------------------------------------------------------- */

static void spread(struct reader *d)
{
    struct sim_rand r = {.state = sim_mix(d->t->seed, 0x67726964)};
    struct sim_request *q = d->t->requests + (d->t->n - d->n_mooncake), *end = d->t->requests + d->t->n;
    int64_t cell_ns = 0;
    while (q < end) {
        struct sim_request *next = q;
        while (next < end && next->at_ns == q->at_ns)
            next++;
        if (next < end) /* else the last cell is as long as the one before it */
            cell_ns = next->at_ns - q->at_ns;
        if (cell_ns < 0 || cell_ns > spread_max_ns)
            cell_ns = 0;
        for (; q < next; q++)
            q->at_ns += (int64_t)((double)cell_ns * sim_rand_unit(&r));
    }
}

int sim_trace_parse(struct sim_trace *t, struct str text, uint32_t max, struct err *e)
{
    struct reader d = {.t = t};
    int rc = ST_OK;
    d.texts = mem_zalloc(SIM_TRACE_LINE_MAX / 2, sizeof *d.texts);
    if (!d.texts)
        return err_set(e, ST_ENOMEM, "trace: no memory");
    while (rc == ST_OK && text.n > 0 && t->n < max) {
        const char *end = memchr(text.p, '\n', text.n);
        struct str line = {text.p, end ? (size_t)(end - text.p) : text.n};
        size_t skip = line.n + (end != NULL);
        d.line++;
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n > 0)
            rc = read_line(&d, line, e);
        text = (struct str){text.p + skip, text.n - skip};
    }
    if (rc == ST_OK && d.n_mooncake > 0 && d.n_mooncake < t->n)
        rc = err_set(e, ST_EINVAL, "trace: lines of both forms");
    if (rc == ST_OK && d.n_mooncake > 0)
        spread(&d);
    mem_free(d.texts);
    mem_free(d.convs.table);
    return rc;
}

int sim_trace_load(struct sim_trace *t, const char *path, uint32_t max, struct err *e)
{
    struct buf b = {.limit = SIM_TRACE_FILE_MAX};
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, ST_ENOENT, "%s: %s", path, strerror(errno));
    char piece[65536];
    size_t n;
    while (!b.failed && (n = fread(piece, 1, sizeof piece, f)) > 0)
        buf_put(&b, piece, n);
    int rc = ferror(f) ? err_set(e, ST_EIO, "%s: %s", path, strerror(errno)) : ST_OK;
    fclose(f);
    if (rc == ST_OK && b.failed)
        rc = err_set(e, b.failed, "%s: %s", path, status_text(b.failed));
    if (rc == ST_OK)
        rc = sim_trace_parse(t, buf_str(&b), max, e);
    if (rc == ST_OK && t->n == 0)
        rc = err_set(e, ST_EINVAL, "%s: no request in it", path);
    buf_fini(&b);
    return rc;
}
