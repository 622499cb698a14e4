/* All arrays of all slots stand in one anonymous mapping, slot after slot: a page is there once a request has written to it,
 * and slots are given out last in first out, so the footprint follows the load and not the configuration.
 *
 * The table of seen tokens is what penalties need. It is built from the prompt on the submitting thread, only for requests
 * that ask for a penalty, and grows by one per drawn token: open addressing over positions in `seen`. */
#define _GNU_SOURCE
#include "req.h"

#include "mem.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>

struct req_table {
    struct req *slots; /* [n_slots] */
    char *slab;        /* [slab_bytes] */
    size_t slab_bytes;
    uint32_t n_slots;
};

/* Offsets of one slot's arrays; false on overflow. */
struct layout {
    size_t tokens, table, ids, bias, seen, seen_index, guide, bytes;
    uint32_t seen_cap;
};

static bool put(struct layout *l, size_t *where, size_t count, size_t size)
{
    size_t bytes;
    *where = l->bytes;
    if (!mem_mul(count, size, &bytes) || !mem_add(l->bytes, bytes, &l->bytes))
        return false;
    l->bytes = (l->bytes + 63) & ~(size_t)63;
    return true;
}

static bool lay_out(struct layout *l, const struct req_limits *o)
{
    uint32_t n_blocks = kv_seq_blocks_for(o->context_length, o->block_tokens);
    *l = (struct layout){.seen_cap = 2};
    while (l->seen_cap < 2 * (uint64_t)o->context_length)
        l->seen_cap *= 2;
    return put(l, &l->tokens, o->context_length, sizeof(int32_t)) &&
           put(l, &l->table, n_blocks, sizeof(uint32_t)) && put(l, &l->ids, n_blocks, sizeof(struct kv_id)) &&
           put(l, &l->bias, ENGINE_BIAS_MAX, sizeof(struct be_bias)) &&
           put(l, &l->seen, o->context_length, sizeof(struct be_seen)) &&
           put(l, &l->seen_index, l->seen_cap, sizeof(uint32_t)) &&
           put(l, &l->guide, 1, sizeof(struct grammar_state));
}

int req_table_create(struct req_table **out, const struct req_limits *o, struct err *e)
{
    struct layout l;
    size_t bytes;
    if (o->context_length == 0 || o->context_length > 1u << 30 || o->n_slots == 0)
        return err_set(e, ST_EINVAL, "context-length %u with %u request slots", o->context_length,
                       o->n_slots);
    if (!lay_out(&l, o) || !mem_mul(l.bytes, o->n_slots, &bytes))
        return err_set(e, ST_ENOMEM, "%u request slots of %u tokens do not fit the address space", o->n_slots,
                       o->context_length);
    struct req_table *t = mem_zalloc(1, sizeof *t);
    if (!t)
        return err_set(e, ST_ENOMEM, "request slots: no memory");
    t->n_slots = o->n_slots;
    t->slab_bytes = bytes;
    t->slots = mem_zalloc(o->n_slots, sizeof *t->slots);
    t->slab = mem_map(bytes);
    if (!t->slots || !t->slab) {
        req_table_destroy(t);
        return err_set(e, ST_ENOMEM, "request slots: no memory for %zu bytes", bytes);
    }
    /* Slots are touched sparsely: a huge page each would cost megabytes and their clearing at the first request. */
    madvise(t->slab, bytes, MADV_NOHUGEPAGE);
    for (uint32_t i = 0; i < o->n_slots; i++) {
        char *p = t->slab + l.bytes * i;
        struct req *q = &t->slots[i];
        q->tokens = (int32_t *)(void *)(p + l.tokens);
        q->table = (uint32_t *)(void *)(p + l.table);
        q->ids = (struct kv_id *)(void *)(p + l.ids);
        q->bias = (struct be_bias *)(void *)(p + l.bias);
        q->seen = (struct be_seen *)(void *)(p + l.seen);
        q->seen_index = (uint32_t *)(void *)(p + l.seen_index);
        q->guide = (struct grammar_state *)(void *)(p + l.guide);
    }
    *out = t;
    return ST_OK;
}

void req_table_destroy(struct req_table *t)
{
    if (!t)
        return;
    for (uint32_t i = 0; t->slots && i < t->n_slots; i++)
        req_release(&t->slots[i]);
    mem_unmap(t->slab, t->slab_bytes);
    mem_free(t->slots);
    mem_free(t);
}

struct req *req_at(struct req_table *t, uint32_t slot)
{
    return &t->slots[slot];
}

static int check_token(const struct req_limits *l, const char *what, uint32_t i, int32_t token, struct err *e)
{
    if (token >= 0 && (uint32_t)token < l->vocab)
        return ST_OK;
    return err_set(e, ST_EINVAL, "%s[%u]: token id %d is outside the vocabulary (0 to %u)", what, i, token,
                   l->vocab - 1);
}

static int check_lengths(const struct req_limits *l, const struct engine_request *r, struct err *e)
{
    if (r->n_prompt == 0)
        return err_set(e, ST_EINVAL, "prompt: empty");
    if (r->max_tokens == 0)
        return err_set(e, ST_EINVAL, "max_tokens: 0, at least 1 is needed");
    uint64_t total = (uint64_t)r->n_prompt + r->max_tokens;
    if (total > l->context_length)
        return err_set(e, ST_EINVAL,
                       "prompt of %u tokens and max_tokens %u exceed the context length of %u tokens",
                       r->n_prompt, r->max_tokens, l->context_length);
    /* The last token drawn needs no KV. */
    uint32_t need = kv_seq_blocks_for((uint32_t)total - 1, l->block_tokens);
    if (need > l->n_blocks)
        return err_set(e, ST_EINVAL,
                       "prompt of %u tokens and max_tokens %u need %u KV blocks, the cache has %u",
                       r->n_prompt, r->max_tokens, need, l->n_blocks);
    return ST_OK;
}

static int check_numbers(const struct engine_request *r, struct err *e)
{
    const struct {
        const char *name;
        float v, min;
    } f[] = {
        {"temperature", r->temperature, 0},
        {"top_p", r->top_p, 0},
        {"min_p", r->min_p, 0},
        {"repetition_penalty", r->repetition, 0},
        {"frequency_penalty", r->frequency, -1e30f},
        {"presence_penalty", r->presence, -1e30f},
    };
    for (size_t i = 0; i < sizeof f / sizeof f[0]; i++)
        if (!isfinite(f[i].v) || f[i].v < f[i].min)
            return err_set(e, ST_EINVAL, "%s: %g", f[i].name, (double)f[i].v);
    if (r->repetition <= 0)
        return err_set(e, ST_EINVAL, "repetition_penalty: must be above 0");
    if (r->n_logprobs < -1 || r->n_logprobs > BE_LOGPROBS_MAX)
        return err_set(e, ST_EINVAL, "logprobs: %d, at most %d", r->n_logprobs, BE_LOGPROBS_MAX);
    return ST_OK;
}

int req_validate(const struct req_limits *l, const struct engine_request *r, struct err *e)
{
    int rc = check_lengths(l, r, e);
    if (rc == ST_OK)
        rc = check_numbers(r, e);
    if (rc != ST_OK)
        return rc;
    if (r->n_stop_tokens > ENGINE_STOP_TOKENS_MAX)
        return err_set(e, ST_EINVAL, "stop tokens: %u, at most %d", r->n_stop_tokens, ENGINE_STOP_TOKENS_MAX);
    if (r->n_bias > ENGINE_BIAS_MAX)
        return err_set(e, ST_EINVAL, "logit_bias: %u entries, at most %d", r->n_bias, ENGINE_BIAS_MAX);
    for (uint32_t i = 0; rc == ST_OK && i < r->n_prompt; i++)
        rc = check_token(l, "prompt", i, r->prompt[i], e);
    for (uint32_t i = 0; rc == ST_OK && i < r->n_stop_tokens; i++)
        rc = check_token(l, "stop tokens", i, r->stop_tokens[i], e);
    for (uint32_t i = 0; rc == ST_OK && i < r->n_bias; i++) {
        rc = check_token(l, "logit_bias", i, r->bias[i].token, e);
        if (rc == ST_OK && !isfinite(r->bias[i].add))
            rc = err_set(e, ST_EINVAL, "logit_bias[%u]: not a finite number", i);
    }
    return rc;
}

static void seen_note(struct req *q, int32_t token, uint32_t n_out)
{
    uint32_t mask = q->seen_cap - 1, i = (uint32_t)token * 2654435761u & mask;
    while (q->seen_index[i] && q->seen[q->seen_index[i] - 1].token != token)
        i = (i + 1) & mask;
    if (!q->seen_index[i]) {
        q->seen[q->n_seen] = (struct be_seen){.token = token};
        q->seen_index[i] = ++q->n_seen;
    }
    q->seen[q->seen_index[i] - 1].n_out += n_out;
}

void req_fill(struct req *q, const struct engine_request *r)
{
    q->n_prompt = r->n_prompt;
    q->max_tokens = r->max_tokens;
    q->min_tokens = r->min_tokens;
    q->n_output = q->n_cached = 0;
    q->temperature = r->temperature;
    q->top_p = r->top_p;
    q->min_p = r->min_p;
    q->repetition = r->repetition;
    q->frequency = r->frequency;
    q->presence = r->presence;
    q->top_k = r->top_k;
    q->seed = r->seed;
    q->n_stop = r->n_stop_tokens;
    memcpy(q->stop, r->stop_tokens, sizeof q->stop);
    q->ignore_eos = r->ignore_eos;
    q->n_logprobs = r->n_logprobs;
    q->arrival_ns = r->arrival_ns;
    q->expected_output = r->expected_output_tokens;
    q->iat_ms = r->iat_ms;
    q->scheduled_ns = q->first_token_ns = 0;
    q->n_bias = r->n_bias;
    if (r->n_bias)
        memcpy(q->bias, r->bias, r->n_bias * sizeof *q->bias);
    memcpy(q->tokens, r->prompt, (size_t)r->n_prompt * sizeof *q->tokens);
    q->penalties = r->repetition != 1 || r->frequency != 0 || r->presence != 0;
    q->n_seen = 0;
    q->grammar = r->grammar ? grammar_get(r->grammar) : NULL;
    if (q->grammar)
        grammar_begin(q->guide, q->grammar);
    if (!q->penalties)
        return;
    /* Only as large as this request can need: clearing is the cost. */
    for (q->seen_cap = 2; q->seen_cap < 2 * (r->n_prompt + r->max_tokens);)
        q->seen_cap *= 2;
    memset(q->seen_index, 0, q->seen_cap * sizeof *q->seen_index);
    for (uint32_t i = 0; i < r->n_prompt; i++)
        seen_note(q, r->prompt[i], 0);
}

void req_release(struct req *q)
{
    grammar_put(q->grammar);
    q->grammar = NULL;
}

void req_append(struct req *q, int32_t token)
{
    q->tokens[q->n_prompt + q->n_output++] = token;
    if (q->penalties)
        seen_note(q, token, 1);
}

bool req_is_stop(const struct req *q, int32_t token)
{
    for (uint32_t i = 0; !q->ignore_eos && i < q->n_stop; i++)
        if (q->stop[i] == token)
            return true;
    return false;
}

void req_sample_row(const struct req *q, uint32_t position, uint32_t logits_row, struct be_sample_row *out)
{
    int32_t last = q->tokens[position - 1];
    *out = (struct be_sample_row){
        .logits_row = logits_row,
        .temperature = q->temperature,
        .top_k = q->top_k,
        .top_p = q->top_p,
        .min_p = q->min_p,
        .repetition = q->repetition,
        .frequency = q->frequency,
        .presence = q->presence,
        .seed = q->seed,
        .position = position,
        .n_bias = q->n_bias,
        .bias = q->bias,
        .n_seen = q->n_seen,
        .seen = q->seen,
        .banned = q->stop,
        .n_banned = q->ignore_eos || position - q->n_prompt < q->min_tokens ? q->n_stop : 0,
        .n_logprobs = q->n_logprobs,
        .prev = q->penalties && last < 0 ? (uint32_t)-last : 0, /* BE_TOKEN_PREV(r) is -(1 + r) */
    };
}
