/* Prompts are not stored: a trace of a day is some hundred MB of tokens. A request names what its prompt is made of, and the
 * tokens are made when it is submitted. A conversation is a chain of parents: a turn's own texts begin where the parent's text
 * ends, which is known without making it, so the chain is walked once, from the end of the prompt to its beginning. A prompt
 * shorter than what was said before it is cut. */
#include "sim_trace.h"

#include "mem.h"
#include "sim_rand.h"

#include <assert.h>

uint64_t sim_trace_output(const struct sim_trace *t, uint32_t i)
{
    return sim_mix(sim_mix(t->seed, 0x6f7574), i);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Tokens of one text, from `at` on; returns where it ends. */
static uint32_t write_text(uint64_t text, uint32_t n, uint32_t vocab, int32_t *out, uint32_t at, uint32_t end)
{
    n = least(n, end - at);
    for (uint32_t i = 0; i < n; i++)
        out[at + i] = sim_token(text, i, vocab);
    return at + n;
}

void sim_trace_prompt(const struct sim_trace *t, uint32_t i, uint32_t vocab, int32_t *out)
{
    uint32_t end = t->requests[i].n_prompt;
    for (uint32_t k = i; k != SIM_NONE; k = t->requests[k].parent) {
        const struct sim_request *r = &t->requests[k];
        uint32_t from =
            r->parent == SIM_NONE ? 0 : t->requests[r->parent].n_prompt + t->requests[r->parent].n_output;
        uint32_t stop = least(r->n_prompt, end), at = least(from, stop);
        for (uint32_t j = 0; j < r->n_texts; j++) {
            const struct sim_text *x = &t->texts[r->text + j];
            at = write_text(x->id, j + 1 < r->n_texts ? x->n : UINT32_MAX, vocab, out, at, stop);
        }
        assert(at == stop);
        if (k != i && r->n_prompt < end)
            write_text(sim_trace_output(t, k), r->n_output, vocab, out, r->n_prompt, end);
        end = stop;
    }
}

static int grow(void **p, uint32_t *cap, uint32_t need, size_t size, struct err *e)
{
    if (need <= *cap)
        return ST_OK;
    uint32_t want = *cap ? *cap : 64;
    while (want < need)
        want *= 2;
    void *q = mem_realloc(*p, (size_t)want * size);
    if (!q)
        return err_set(e, ST_ENOMEM, "trace: no memory for %u entries", want);
    *p = q;
    *cap = want;
    return ST_OK;
}

int sim_trace_add(struct sim_trace *t, const struct sim_request *r, const struct sim_text *texts,
                  uint32_t n_texts, struct err *e)
{
    if (t->n == SIM_TRACE_REQUESTS_MAX || t->n_texts > UINT32_MAX / 2 - n_texts)
        return err_set(e, ST_EINVAL, "trace: more than %d requests", SIM_TRACE_REQUESTS_MAX);
    assert(n_texts > 0 && r->n_prompt > 0 && r->n_output > 0 && (r->parent == SIM_NONE || r->parent < t->n));
    int rc = grow((void **)&t->requests, &t->cap, t->n + 1, sizeof *t->requests, e);
    if (rc == ST_OK)
        rc = grow((void **)&t->texts, &t->cap_texts, t->n_texts + n_texts, sizeof *t->texts, e);
    if (rc != ST_OK)
        return rc;
    struct sim_request *q = &t->requests[t->n++];
    *q = *r;
    q->text = t->n_texts;
    q->n_texts = n_texts;
    for (uint32_t i = 0; i < n_texts; i++)
        t->texts[t->n_texts++] = texts[i];
    return ST_OK;
}

void sim_trace_scale(struct sim_trace *t, double scale)
{
    for (uint32_t i = 0; i < t->n; i++)
        t->requests[i].at_ns = (int64_t)((double)t->requests[i].at_ns / scale);
}

void sim_trace_fini(struct sim_trace *t)
{
    mem_free(t->requests);
    mem_free(t->texts);
    *t = (struct sim_trace){.seed = t->seed};
}
