/* Nothing here depends on what else is in the step: a row's position and KV slot follow from its sequence alone. */
#include "batch.h"

#include "mem.h"

#include <assert.h>
#include <string.h>

int batch_create(struct batch **out, uint32_t max_rows, uint32_t max_spans, uint32_t block_tokens,
                 struct err *e)
{
    struct batch *b = mem_zalloc(1, sizeof *b);
    if (!b)
        return err_set(e, ST_ENOMEM, "batch: no memory");
    b->max_rows = max_rows;
    b->max_spans = max_spans;
    b->block_tokens = block_tokens;
    b->tokens = mem_zalloc(max_rows, sizeof *b->tokens);
    b->positions = mem_zalloc(max_rows, sizeof *b->positions);
    b->kv_slots = mem_zalloc(max_rows, sizeof *b->kv_slots);
    b->spans = mem_zalloc(max_spans, sizeof *b->spans);
    b->logit_rows = mem_zalloc(max_spans, sizeof *b->logit_rows);
    b->sample = mem_zalloc(max_spans, sizeof *b->sample);
    b->drawn = mem_zalloc(max_spans, sizeof *b->drawn);
    if (!b->tokens || !b->positions || !b->kv_slots || !b->spans || !b->logit_rows || !b->sample ||
        !b->drawn) {
        batch_destroy(b);
        return err_set(e, ST_ENOMEM, "batch: no memory for %u rows", max_rows);
    }
    b->be = (struct be_batch){.tokens = b->tokens,
                              .positions = b->positions,
                              .kv_slots = b->kv_slots,
                              .spans = b->spans,
                              .logit_rows = b->logit_rows};
    *out = b;
    return ST_OK;
}

void batch_destroy(struct batch *b)
{
    if (!b)
        return;
    mem_free(b->tokens);
    mem_free(b->positions);
    mem_free(b->kv_slots);
    mem_free(b->spans);
    mem_free(b->logit_rows);
    mem_free(b->sample);
    mem_free(b->drawn);
    mem_free(b);
}

void batch_reset(struct batch *b)
{
    b->be.n_rows = b->be.n_spans = b->be.n_logits = 0;
}

int32_t batch_add(struct batch *b, const int32_t *tokens, const uint32_t *table, uint32_t start, uint32_t n,
                  bool want_logits)
{
    uint32_t row0 = b->be.n_rows, bt = b->block_tokens;
    assert(n > 0 && n <= b->max_rows - row0 && b->be.n_spans < b->max_spans);
    memcpy(b->tokens + row0, tokens + start, n * sizeof *tokens);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pos = start + i;
        b->positions[row0 + i] = pos;
        b->kv_slots[row0 + i] = table[pos / bt] * bt + pos % bt;
    }
    b->spans[b->be.n_spans++] = (struct be_span){
        .row0 = row0, .n_rows = n, .pos0 = start, .n_blocks = (start + n + bt - 1) / bt, .table = table};
    b->be.n_rows += n;
    if (!want_logits)
        return -1;
    b->logit_rows[b->be.n_logits] = row0 + n - 1;
    return (int32_t)b->be.n_logits++;
}
