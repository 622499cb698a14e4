/* fake_be: a backend and a forward whose tokens tell whether the engine fed them right.
 *
 * The KV of a position is a hash of its token, its position and the KV that the block table shows for the position before it.
 * Logits are a hash of the KV of all positions, read through the block table. A stale block, a wrong slot, a wrong position,
 * a lost or doubled row anywhere in the past gives other tokens. fake_reference draws the same tokens from the tokens alone,
 * with no blocks, batches or steps: it is the one-at-a-time run.
 *
 * It is as late as a backend may be: a step runs inside its wait_step, on copies made in its end_step, which then spoils the
 * caller's arrays; earlier only if somebody insists on a copy that comes after it. Until wait_step the results are poison. It
 * asserts what backend.h asks of a caller. Copies: fake_transfers.h.
 *
 * Owns     its KV and logits, and the copies of the steps under way. One per engine.
 * Threads  the engine's thread, but for the knobs, which are set before start or are atomic.
 * Bounds   FAKE_VOCAB tokens, FAKE_SEQS_MAX sequences, FAKE_DEPTH_MAX steps under way.
 */
#ifndef STATOR_TEST_FAKE_BE_H
#define STATOR_TEST_FAKE_BE_H

#include "engine_core.h"
#include "fake_transfers.h"
#include "grammar_mask.h"
#include "mem.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FAKE_VOCAB = 97, FAKE_SEQS_MAX = 16, FAKE_DEPTH_MAX = 2, FAKE_MASK_WORDS = (FAKE_VOCAB + 31) / 32, FAKE_PATIENCE = 16 };

/* What one step was given, in memory of our own. */
struct fake_step {
    struct be_batch b;
    float *logits;
    struct op_sample sample; /* n_rows 0: none */
    bool ran;
    struct be_sample_out drawn[FAKE_SEQS_MAX]; /* what wait_step hands out */
};

struct fake_be {
    struct be be;
    struct be_ops ops;
    struct be_kv_shape kv_shape;
    uint64_t *kv; /* [n_blocks * block_tokens] */
    uint32_t max_rows, max_seqs;
    uint32_t depth; /* knob: steps under way at once; 0 = 1 */
    uint64_t
        fail_call; /* knob: this call (1 = first) fails: begin, forward, sample, end, wait, store, load, poll */
    bool fail_once;       /* knob: only that one; otherwise each after it as well */
    uint64_t broken_seed; /* knob: a request with this seed draws no token at its 3rd one; 0 = none */
    long step_ns;         /* knob: how long a step takes */
    atomic_uint wakes;
    uint64_t calls;
    bool in_step;
    const struct be_batch *given; /* by begin_step; of the step being built */
    struct fake_step next;        /* the step being built: still the caller's arrays */
    struct fake_step queue[FAKE_DEPTH_MAX];
    uint32_t n_queued, most_queued;
    uint64_t n_launched, n_ran; /* steps */
    struct fake_transfers transfers;
    uint32_t polls;              /* in vain, for a copy that waits for steps */
    int32_t prev[FAKE_SEQS_MAX]; /* tokens of the step that ran last */
    uint32_t n_prev;
};

static inline uint64_t fake_mix(uint64_t a, uint64_t b)
{
    uint64_t z = (a ^ (b + 0x9e3779b97f4a7c15u + (a << 6) + (a >> 2))) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline float fake_unit(uint64_t h) /* 0 < u < 1 */
{
    return ((float)(h >> 41) + 0.5f) / 8388608.0f;
}

static inline uint64_t fake_kv(uint64_t before, int32_t token, uint32_t position)
{
    return fake_mix(fake_mix(before, (uint64_t)(uint32_t)token + 1), position + 1);
}

static inline void fake_logits(uint64_t h, float *out)
{
    for (uint32_t v = 0; v < FAKE_VOCAB; v++)
        out[v] = 6 * fake_unit(fake_mix(h, v)) - 3;
}

static inline void fake_draw(float *z, const struct be_sample_row *r, struct be_sample_out *out)
{
    int32_t best = -1;
    float top = -INFINITY;
    for (uint32_t i = 0; i < r->n_bias; i++)
        z[r->bias[i].token] += r->bias[i].add;
    for (uint32_t i = 0; i < r->n_seen; i++) {
        float *x = &z[r->seen[i].token];
        *x = *x > 0 ? *x / r->repetition : *x * r->repetition;
        *x -= r->frequency * (float)r->seen[i].n_out + (r->seen[i].n_out ? r->presence : 0);
    }
    for (uint32_t i = 0; i < r->n_banned; i++)
        z[r->banned[i]] = -INFINITY;
    for (uint32_t v = 0; v < FAKE_VOCAB && r->allowed; v++)
        if (!(r->allowed[v / 32] >> v % 32 & 1))
            z[v] = -INFINITY;
    for (int32_t v = 0; v < FAKE_VOCAB; v++) {
        float y = z[v];
        if (r->temperature >= 1e-5f)
            y = y / r->temperature -
                logf(-logf(fake_unit(fake_mix(fake_mix(r->seed, r->position), (uint64_t)v))));
        if (y > top) {
            top = y;
            best = v;
        }
    }
    *out = (struct be_sample_out){.token = best, .logprob = top};
}

static inline struct fake_be *fake_of(struct be *be)
{
    return (struct fake_be *)be;
}

static inline int fake_kv_create(struct be *be, const struct be_kv_shape *s, struct be_kv **out,
                                 struct err *e)
{
    struct fake_be *f = fake_of(be);
    size_t n = (size_t)s->n_blocks * s->block_tokens;
    f->kv_shape = *s;
    f->kv = mem_zalloc(n, sizeof *f->kv);
    if (!f->kv)
        return err_set(e, ST_ENOMEM, "fake KV");
    for (size_t i = 0; i < n; i++)
        f->kv[i] = 0xdeadbeef00000000u + i;
    *out = (struct be_kv *)f;
    return ST_OK;
}

static inline void fake_kv_destroy(struct be *be, struct be_kv *kv)
{
    (void)kv;
    assert(fake_of(be)->n_queued == 0 && fake_of(be)->transfers.n == 0);
    mem_free(fake_of(be)->kv);
}

static inline size_t fake_kv_block_bytes(struct be *be, const struct be_kv_shape *s)
{
    (void)be;
    return s->block_tokens * sizeof(uint64_t);
}

static inline void *fake_buffer_create(struct be *be, size_t bytes)
{
    (void)be;
    return mem_zalloc(1, bytes);
}

static inline void fake_buffer_destroy(struct be *be, void *p)
{
    (void)be;
    mem_free(p);
}

static inline void *fake_host_alloc(struct be *be, size_t bytes)
{
    (void)be;
    void *p = mem_alloc(bytes);
    return p ? memset(p, 0xcc, bytes) : NULL;
}

static inline void fake_wake(struct be *be)
{
    atomic_fetch_add(&fake_of(be)->wakes, 1);
}

/* ---- launching: nothing runs yet ----------------------------------------------------------------------------------- */

static inline bool fake_fails(struct fake_be *f)
{
    f->calls++;
    bool fails = f->fail_call && (f->fail_once ? f->calls == f->fail_call : f->calls >= f->fail_call);
    if (fails)
        fake_transfers_fail(&f->transfers);
    return fails;
}

static inline struct fake_pool fake_pool_of(struct fake_be *f)
{
    return (struct fake_pool){.base = (unsigned char *)f->kv,
                              .block_bytes = fake_kv_block_bytes(&f->be, &f->kv_shape),
                              .n_blocks = f->kv_shape.n_blocks};
}

static inline int fake_transfer(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                                bool store, uint64_t *ticket)
{
    struct fake_be *f = fake_of(be);
    struct fake_pool p = fake_pool_of(f);
    assert(!f->in_step && kv == (struct be_kv *)f);
    if (fake_fails(f))
        return ST_EDEVICE;
    return fake_transfers_begin(&f->transfers, &p, list, n, store, f->n_launched, ticket);
}

static inline int fake_store(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                             uint64_t *ticket)
{
    return fake_transfer(be, kv, list, n, true, ticket);
}

static inline int fake_load(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                            uint64_t *ticket)
{
    return fake_transfer(be, kv, list, n, false, ticket);
}

static inline int fake_begin(struct be *be, const struct be_batch *b)
{
    struct fake_be *f = fake_of(be);
    assert(!f->in_step && f->n_queued < f->ops.depth);
    if (fake_fails(f))
        return ST_EDEVICE;
    f->in_step = true;
    f->given = b;
    f->next = (struct fake_step){.logits = NULL};
    return ST_OK;
}

static inline int fake_forward(void *ctx, const struct be_batch *b, struct be_kv *kv, float *logits)
{
    struct fake_be *f = ctx;
    assert(f->in_step && b == f->given && kv == (struct be_kv *)f && b->n_rows > 0 &&
           b->n_rows <= f->max_rows);
    if (fake_fails(f))
        return ST_EDEVICE;
    f->next.b = *b;
    f->next.logits = logits;
    return ST_OK;
}

static inline int fake_sample(struct be *be, const struct op_sample *p)
{
    struct fake_be *f = fake_of(be);
    assert(f->in_step && p->vocab == FAKE_VOCAB && p->n_rows > 0 && p->n_rows <= f->max_seqs);
    if (fake_fails(f))
        return ST_EDEVICE;
    f->next.sample = *p;
    memset(p->out, 0xa5, p->n_rows * sizeof *p->out);
    return ST_OK;
}

/* `more` elements longer than what is copied. */
static inline void *fake_copy(const void *p, uint32_t n, uint32_t more, size_t size)
{
    void *copy = malloc((n + more + 1) * size);
    assert(copy);
    if (n > 0)
        memcpy(copy, p, n * size);
    return copy;
}

static inline void fake_spoil(const void *p, uint32_t n, size_t size)
{
    if (n > 0)
        memset((void *)(uintptr_t)p, 0xee, n * size);
}

static inline void fake_take_batch(struct be_batch *b)
{
    struct be_batch given = *b;
    struct be_span *spans = fake_copy(given.spans, given.n_spans, 0, sizeof *spans);
    for (uint32_t i = 0; i < given.n_spans; i++)
        spans[i].table = fake_copy(spans[i].table, spans[i].n_blocks, 0, sizeof *spans[i].table);
    b->spans = spans;
    b->tokens = fake_copy(given.tokens, given.n_rows, 0, sizeof *given.tokens);
    b->positions = fake_copy(given.positions, given.n_rows, 0, sizeof *given.positions);
    b->kv_slots = fake_copy(given.kv_slots, given.n_rows, 0, sizeof *given.kv_slots);
    b->logit_rows = fake_copy(given.logit_rows, given.n_logits, 0, sizeof *given.logit_rows);
    fake_spoil(given.spans, given.n_spans, sizeof *given.spans);
    fake_spoil(given.tokens, given.n_rows, sizeof *given.tokens);
    fake_spoil(given.positions, given.n_rows, sizeof *given.positions);
    fake_spoil(given.kv_slots, given.n_rows, sizeof *given.kv_slots);
    fake_spoil(given.logit_rows, given.n_logits, sizeof *given.logit_rows);
}

static inline void fake_take_sample(struct op_sample *p)
{
    const struct be_sample_row *given = p->rows;
    struct be_sample_row *rows = fake_copy(given, p->n_rows, 0, sizeof *rows);
    for (uint32_t i = 0; i < p->n_rows; i++) {
        rows[i].bias = fake_copy(rows[i].bias, rows[i].n_bias, 0, sizeof *rows[i].bias);
        rows[i].seen = fake_copy(rows[i].seen, rows[i].n_seen, 1, sizeof *rows[i].seen);
        rows[i].banned = fake_copy(rows[i].banned, rows[i].n_banned, 0, sizeof *rows[i].banned);
        const uint32_t *allowed = rows[i].allowed;
        if (allowed) {
            rows[i].allowed = fake_copy(allowed, FAKE_MASK_WORDS, 0, sizeof *allowed);
            fake_spoil(allowed, FAKE_MASK_WORDS, sizeof *allowed);
        }
    }
    p->rows = rows;
    fake_spoil(given, p->n_rows, sizeof *given);
}

static inline int fake_end(struct be *be, struct err *e)
{
    struct fake_be *f = fake_of(be);
    assert(f->in_step);
    f->in_step = false;
    if (fake_fails(f))
        return err_set(e, ST_EDEVICE, "injected");
    for (uint32_t i = 0; i < f->next.b.n_rows; i++)
        fake_transfers_check_write(&f->transfers, f->next.b.kv_slots[i] / f->kv_shape.block_tokens);
    fake_take_batch(&f->next.b);
    fake_take_sample(&f->next.sample);
    f->queue[f->n_queued++] = f->next;
    f->n_launched++;
    if (f->most_queued < f->n_queued)
        f->most_queued = f->n_queued;
    return ST_OK;
}

/* ---- running: steps one after the other, each in its wait_step ------------------------------------------------------ */

static inline uint64_t *fake_at(struct fake_be *f, const struct be_span *s, uint32_t position)
{
    uint32_t bt = f->kv_shape.block_tokens;
    assert(position / bt < s->n_blocks && s->table[position / bt] < f->kv_shape.n_blocks);
    return &f->kv[(size_t)s->table[position / bt] * bt + position % bt];
}

/* The token that a row of the step before drew; 0 if it drew none. */
static inline int32_t fake_prev(const struct fake_be *f, uint32_t row)
{
    assert(f->ops.depth > 1 && row < f->n_prev);
    return f->prev[row] < 0 ? 0 : f->prev[row];
}

static inline void fake_run_batch(struct fake_be *f, const struct be_batch *b, float *logits)
{
    uint32_t row = 0, want = 0;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        const struct be_span *s = &b->spans[i];
        assert(s->row0 == row && s->n_rows > 0);
        for (uint32_t r = 0; r < s->n_rows; r++, row++) {
            uint32_t pos = s->pos0 + r;
            int32_t token =
                b->tokens[row] < 0 ? fake_prev(f, (uint32_t)(-1 - b->tokens[row])) : b->tokens[row];
            assert(b->positions[row] == pos && token < FAKE_VOCAB);
            assert(&f->kv[b->kv_slots[row]] == fake_at(f, s, pos));
            f->kv[b->kv_slots[row]] = fake_kv(pos ? *fake_at(f, s, pos - 1) : 0, token, pos);
        }
        if (want < b->n_logits && b->logit_rows[want] < row) {
            uint32_t pos = s->pos0 + b->logit_rows[want] - s->row0;
            uint64_t h = 0;
            for (uint32_t p = 0; p <= pos; p++)
                h = fake_mix(h, *fake_at(f, s, p));
            fake_logits(h, logits + (size_t)want++ * FAKE_VOCAB);
        }
    }
    assert(row == b->n_rows && want == b->n_logits);
}

/* The copy has room for one more. */
static inline void fake_count_prev(struct be_sample_row *r, int32_t token)
{
    struct be_seen *seen = (struct be_seen *)(uintptr_t)r->seen;
    uint32_t i = 0;
    while (i < r->n_seen && seen[i].token != token)
        i++;
    if (i == r->n_seen)
        seen[r->n_seen++] = (struct be_seen){.token = token};
    seen[i].n_out++;
}

static inline void fake_run_sample(struct fake_be *f, const struct op_sample *p)
{
    for (uint32_t i = 0; i < p->n_rows; i++) {
        struct be_sample_row r = p->rows[i];
        assert(r.logits_row == i);
        if (r.prev)
            fake_count_prev(&r, fake_prev(f, r.prev - 1));
        fake_draw(p->logits + (size_t)r.logits_row * FAKE_VOCAB, &r, &p->out[i]);
        if (f->broken_seed && r.seed == f->broken_seed && r.n_seen == 2)
            p->out[i].token = -1;
    }
}

static inline void fake_free(struct fake_step *s)
{
    for (uint32_t i = 0; i < s->b.n_spans; i++)
        free((void *)(uintptr_t)s->b.spans[i].table);
    for (uint32_t i = 0; i < s->sample.n_rows; i++) {
        free((void *)(uintptr_t)s->sample.rows[i].bias);
        free((void *)(uintptr_t)s->sample.rows[i].seen);
        free((void *)(uintptr_t)s->sample.rows[i].banned);
        free((void *)(uintptr_t)s->sample.rows[i].allowed);
    }
    free((void *)(uintptr_t)s->sample.rows);
    free((void *)(uintptr_t)s->b.spans);
    free((void *)(uintptr_t)s->b.tokens);
    free((void *)(uintptr_t)s->b.positions);
    free((void *)(uintptr_t)s->b.kv_slots);
    free((void *)(uintptr_t)s->b.logit_rows);
}

/* The oldest step that has not: its results stay with us until it is waited for. */
static inline void fake_run_next(struct fake_be *f)
{
    uint32_t i = 0;
    while (i < f->n_queued && f->queue[i].ran)
        i++;
    if (i == f->n_queued)
        return;
    struct fake_step *s = &f->queue[i];
    struct fake_pool p = fake_pool_of(f);
    struct op_sample sample = s->sample;
    sample.out = s->drawn;
    fake_transfers_before_step(&f->transfers, &p, f->n_ran);
    fake_run_batch(f, &s->b, s->logits);
    fake_run_sample(f, &sample);
    s->ran = true;
    f->n_ran++;
    f->n_prev = sample.n_rows;
    for (uint32_t k = 0; k < f->n_prev; k++)
        f->prev[k] = s->drawn[k].token;
}

static inline int fake_poll(struct be *be, uint64_t ticket)
{
    struct fake_be *f = fake_of(be);
    struct fake_pool p = fake_pool_of(f);
    if (fake_fails(f))
        return ST_EDEVICE;
    int rc = fake_transfers_poll(&f->transfers, &p, f->n_ran, ticket);
    f->polls = rc == 0 ? f->polls + 1 : 0;
    if (f->polls % FAKE_PATIENCE == FAKE_PATIENCE - 1)
        fake_run_next(f);
    return rc;
}

static inline int fake_wait(struct be *be, struct err *e)
{
    struct fake_be *f = fake_of(be);
    assert(!f->in_step && f->n_queued > 0);
    int rc = fake_fails(f) ? err_set(e, ST_EDEVICE, "injected") : ST_OK;
    if (rc == ST_OK && f->step_ns)
        nanosleep(&(struct timespec){.tv_nsec = f->step_ns}, NULL);
    if (rc == ST_OK && !f->queue[0].ran)
        fake_run_next(f);
    struct fake_step s = f->queue[0];
    memmove(f->queue, f->queue + 1, --f->n_queued * sizeof *f->queue);
    if (rc == ST_OK && s.sample.n_rows > 0)
        memcpy(s.sample.out, s.drawn, s.sample.n_rows * sizeof *s.drawn);
    if (!s.ran) { /* it never will */
        f->n_ran++;
        f->n_prev = s.sample.n_rows;
        for (uint32_t i = 0; i < f->n_prev; i++)
            f->prev[i] = -1;
    }
    fake_free(&s);
    return rc;
}

static inline int fake_limits(struct be *be, const struct be_step_limits *l, struct err *e)
{
    (void)e;
    assert(l->max_rows == fake_of(be)->max_rows && l->max_logits == fake_of(be)->max_seqs &&
           l->vocab == FAKE_VOCAB);
    return ST_OK;
}

static const struct be_ops fake_ops = {.name = "fake",
                                       .depth = 1,
                                       .masks = true,
                                       .kv_create = fake_kv_create,
                                       .kv_destroy = fake_kv_destroy,
                                       .kv_block_bytes = fake_kv_block_bytes,
                                       .host_alloc = fake_host_alloc,
                                       .host_free = fake_buffer_destroy,
                                       .kv_store = fake_store,
                                       .kv_load = fake_load,
                                       .copy_poll = fake_poll,
                                       .buffer_create = fake_buffer_create,
                                       .buffer_destroy = fake_buffer_destroy,
                                       .wake = fake_wake,
                                       .begin_step = fake_begin,
                                       .end_step = fake_end,
                                       .step_limits = fake_limits,
                                       .wait_step = fake_wait,
                                       .sample = fake_sample};

/* o->be, vocabulary and forward are filled in. */
static inline int fake_engine_create(struct engine **out, struct fake_be *f, struct engine_options *o,
                                     struct err *e)
{
    struct engine_core c = {.forward = fake_forward,
                            .ctx = f,
                            .vocab = FAKE_VOCAB,
                            .kv = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 1},
                            .fingerprint = "fake",
                            .fingerprint_bytes = 4};
    assert(o->max_num_seqs <= FAKE_SEQS_MAX && f->depth <= FAKE_DEPTH_MAX);
    f->ops = fake_ops;
    f->ops.depth = f->depth ? f->depth : 1;
    f->be.ops = &f->ops;
    f->max_rows = o->max_num_batched_tokens;
    f->max_seqs = o->max_num_seqs;
    o->be = &f->be;
    return engine_core_create(out, o, &c, e);
}

/* Every token tried by itself. */
static inline void fake_mask(const struct engine_request *r, const struct grammar_state *s, uint32_t *bits)
{
    memset(bits, 0, FAKE_MASK_WORDS * sizeof *bits);
    for (uint32_t v = 0; v < FAKE_VOCAB; v++) {
        struct grammar_state next = *s;
        bits[v / 32] |= (uint32_t)grammar_push_token(&next, v) << v % 32;
    }
    for (uint32_t i = 0; i < r->n_stop_tokens && !r->ignore_eos && grammar_can_end(s); i++)
        bits[r->stop_tokens[i] / 32] |= 1u << r->stop_tokens[i] % 32;
}

/* What a request alone in the world gives: tokens and log-probabilities into out[max_tokens], the number returned; *stopped:
 * by a stop token, or because its grammar ends. */
static inline uint32_t fake_reference(const struct engine_request *r, int32_t *out, float *logprobs,
                                      bool *stopped)
{
    uint64_t before = 0, h = 0;
    struct be_seen seen[FAKE_VOCAB];
    uint32_t at[FAKE_VOCAB] = {0}, n_seen = 0, n = 0;
    bool penalties = r->repetition != 1 || r->frequency != 0 || r->presence != 0;
    uint32_t allowed[FAKE_MASK_WORDS];
    struct grammar_state guide;
    if (r->grammar)
        grammar_begin(&guide, r->grammar);
    *stopped = false;
    for (uint32_t pos = 0; n < r->max_tokens && !*stopped; pos++) {
        int32_t t = pos < r->n_prompt ? r->prompt[pos] : out[pos - r->n_prompt];
        before = fake_kv(before, t, pos);
        h = fake_mix(h, before);
        if (!at[t]) {
            seen[n_seen] = (struct be_seen){.token = t};
            at[t] = ++n_seen;
        }
        seen[at[t] - 1].n_out += pos >= r->n_prompt;
        if (pos + 1 < r->n_prompt)
            continue;
        float z[FAKE_VOCAB];
        struct be_sample_row row = {.temperature = r->temperature,
                                    .repetition = r->repetition,
                                    .frequency = r->frequency,
                                    .presence = r->presence,
                                    .seed = r->seed,
                                    .position = pos + 1,
                                    .bias = r->bias,
                                    .n_bias = r->n_bias,
                                    .seen = seen,
                                    .n_seen = penalties ? n_seen : 0,
                                    .banned = r->stop_tokens,
                                    .n_banned = r->ignore_eos ? r->n_stop_tokens : 0,
                                    .allowed = r->grammar ? allowed : NULL};
        struct be_sample_out drawn;
        if (r->grammar)
            fake_mask(r, &guide, allowed);
        fake_logits(h, z);
        fake_draw(z, &row, &drawn);
        for (uint32_t i = 0; i < r->n_stop_tokens && !r->ignore_eos; i++)
            *stopped |= r->stop_tokens[i] == drawn.token;
        if (*stopped)
            break;
        logprobs[n] = drawn.logprob;
        out[n++] = drawn.token;
        *stopped = r->grammar && grammar_push_token(&guide, (uint32_t)drawn.token) && grammar_must_end(&guide);
    }
    return n;
}

#endif
