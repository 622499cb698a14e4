/* late_cpu: the CPU backend with two steps under way, as far as its caller can tell: what a step draws is kept back until its
 * wait_step, and BE_TOKEN_PREV and be_sample_row.prev are looked up in the step before. Steps still run inside their ops.
 *
 * Owns     what was drawn and not yet waited for. One at a time: it is put into the backend's own op table.
 * States   late_cpu_open -> (late_cpu_on | late_cpu_off, between engines)*
 * Bounds   LATE_ROWS rows, LATE_SEEN seen tokens.
 */
#ifndef STATOR_TEST_LATE_CPU_H
#define STATOR_TEST_LATE_CPU_H

#include "backend.h"

#include <assert.h>
#include <string.h>

enum { LATE_DEPTH = 2, LATE_ROWS = 256, LATE_SEEN = 256 };

struct late_step {
    struct op_sample p; /* the caller's; n_rows 0: none */
    struct be_sample_out drawn[LATE_ROWS];
};

static struct {
    const struct be_ops *cpu;
    struct be_ops ops;
    struct late_step steps[LATE_DEPTH + 1]; /* step i at i % 3: those under way and the one before them */
    uint64_t launched, waited;
} late;

static inline struct late_step *late_at(uint64_t i)
{
    return &late.steps[i % (LATE_DEPTH + 1)];
}

static inline int32_t late_prev(uint32_t row)
{
    const struct late_step *s = late_at(late.launched - 1);
    assert(late.launched > 0 && row < s->p.n_rows);
    return s->drawn[row].token < 0 ? 0 : s->drawn[row].token;
}

static inline int late_begin(struct be *be, const struct be_batch *b)
{
    assert(late.launched - late.waited < LATE_DEPTH && b->n_rows <= LATE_ROWS);
    late_at(late.launched)->p.n_rows = 0;
    return late.cpu->begin_step(be, b);
}

static inline int late_embed(struct be *be, const struct op_embed *p)
{
    int32_t tokens[LATE_ROWS];
    struct be_batch b = *p->batch;
    struct op_embed known = *p;
    for (uint32_t i = 0; i < b.n_rows; i++)
        tokens[i] = b.tokens[i] < 0 ? late_prev((uint32_t)(-1 - b.tokens[i])) : b.tokens[i];
    b.tokens = tokens;
    known.batch = &b;
    return late.cpu->embed(be, &known);
}

static inline int late_sample(struct be *be, const struct op_sample *p)
{
    struct late_step *s = late_at(late.launched);
    int rc = ST_OK;
    s->p = *p;
    for (uint32_t i = 0; i < p->n_rows && rc == ST_OK; i++) {
        struct be_seen seen[LATE_SEEN + 1];
        struct be_sample_row row = p->rows[i];
        assert(row.n_seen <= LATE_SEEN);
        if (row.prev) {
            uint32_t at = 0;
            int32_t token = late_prev(row.prev - 1);
            if (row.n_seen > 0)
                memcpy(seen, row.seen, row.n_seen * sizeof *seen);
            while (at < row.n_seen && seen[at].token != token)
                at++;
            if (at == row.n_seen)
                seen[row.n_seen++] = (struct be_seen){.token = token};
            seen[at].n_out++;
            row.seen = seen;
            row.prev = 0;
        }
        struct op_sample one = {
            .n_rows = 1, .vocab = p->vocab, .logits = p->logits, .rows = &row, .out = &s->drawn[i]};
        rc = late.cpu->sample(be, &one);
    }
    memset(p->out, 0xa5, p->n_rows * sizeof *p->out);
    return rc;
}

static inline int late_end(struct be *be, struct err *e)
{
    late.launched++;
    return late.cpu->end_step(be, e);
}

static inline int late_wait(struct be *be, struct err *e)
{
    (void)be;
    (void)e;
    assert(late.waited < late.launched);
    const struct late_step *s = late_at(late.waited++);
    if (s->p.n_rows > 0)
        memcpy(s->p.out, s->drawn, s->p.n_rows * sizeof *s->drawn);
    return ST_OK;
}

static inline void late_cpu_open(struct be *be)
{
    late.cpu = be->ops;
    late.ops = *be->ops;
    late.launched = late.waited = 0;
    late.ops.depth = LATE_DEPTH;
    late.ops.begin_step = late_begin;
    late.ops.end_step = late_end;
    late.ops.wait_step = late_wait;
    late.ops.embed = late_embed;
    late.ops.sample = late_sample;
}

static inline void late_cpu_on(struct be *be)
{
    be->ops = &late.ops;
}

static inline void late_cpu_off(struct be *be)
{
    be->ops = late.cpu;
}

#endif
