/* One load of the weights serves all cases. The share of a decode step is of the memory's floor: the weights once, each row's
 * keys and values once, at the speed of a copy in this run; of a prompt, of the library's best product. */
#include "serving.h"

#include "gap.h"
#include "hosted.h"

#include <string.h>

enum { STEADY_STEPS = 80, MARK_STEPS = 50, CONTEXT = 500 };

static const char *form(const struct serving *w)
{
    return w->fp8 ? "fp8" : "bf16";
}

static int say(const char *what, const struct err *e)
{
    fprintf(stderr, "%s: %s\n", what, e->text);
    return e->status;
}

/* ---- decode ------------------------------------------------------------------------------------------------------ */

/* Prompts are a step's budget at a time while those that are done decode already: they get tokens for that too. */
static struct hosted_load decode_load(uint32_t batch)
{
    uint32_t filling = batch * CONTEXT / (HOSTED_ROWS - batch) + 2;
    return (struct hosted_load){.concurrency = batch,
                                .total = batch,
                                .n_prompt = CONTEXT - STEADY_STEPS / 2 - filling / 2,
                                .n_tokens = filling + STEADY_STEPS,
                                .limit_s = 30,
                                .mark_steps = MARK_STEPS,
                                .mark = gap_start};
}

static int decode_one(struct rig *r, struct hosted *h, const struct serving *w, uint32_t batch)
{
    struct hosted_load load = decode_load(batch);
    struct hosted_outcome o;
    struct gap gap = {0};
    struct err e = {0};
    if (hosted_drive(h, &load, &o, &e) != ST_OK)
        return say("decode", &e);
    int rc = gap_stop(r->stream, &gap);
    double bytes = h->weight_bytes + batch * o.steady_context * h->kv_token_bytes, floor_ms = bytes / r->copy_gbs / 1e6;
    double tok_s = (double)o.steady_tokens / o.steady_s, step_ms = batch * 1e3 / tok_s;
    rig_row(r, "%s,%u,%.0f,%.0f,%.3f,%.3f,%.3f,%.3f,%.3f,%.1f,%.1f,%.1f,%s", form(w), batch, o.steady_context, tok_s, step_ms,
            o.steady_itl_ms, o.steady_itl_p99_ms, floor_ms, floor_ms / step_ms, gap.median_us, gap.p99_us, gap.floor_us,
            o.cut ? "cut short" : "");
    return rc;
}

static int decode(struct rig *r, struct hosted *h, const struct serving *w)
{
    static const uint32_t batches[] = {1, 8, 32, 64, 128, 200, 256};
    int rc = gap_open(r->gpu);
    rig_table(r, w->fp8 ? "decode_fp8" : "decode_bf16",
              "form,batch,context,tok_s,step_ms,itl_ms,itl_p99_ms,floor_ms,share,gap_us,gap_p99_us,gap_zero_us,note");
    for (size_t i = 0; i < sizeof batches / sizeof *batches && rc == ST_OK; i++)
        rc = decode_one(r, h, w, batches[i]);
    rig_table_end(r);
    gap_close();
    return rc;
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

/* Best of three: one request alone, from its arrival to its first token. */
static int prefill(struct rig *r, struct hosted *h, const struct serving *w)
{
    static const uint32_t lengths[] = {512, 2048, 8192};
    int rc = ST_OK;
    rig_table(r, w->fp8 ? "prefill_fp8" : "prefill_bf16", "form,tokens,ms,tok_s,tflops,share");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths && rc == ST_OK; i++) {
        double n = lengths[i], best = 0;
        for (int round = 0; round < 4 && rc == ST_OK; round++) {
            struct hosted_load load = {.concurrency = 1, .total = 1, .n_prompt = lengths[i], .n_tokens = 1, .limit_s = 20};
            struct hosted_outcome o;
            struct err e = {0};
            rc = hosted_drive(h, &load, &o, &e) == ST_OK ? ST_OK : say("prefill", &e);
            if (rc == ST_OK && round > 0 && (best == 0 || o.ttft_ms < best))
                best = o.ttft_ms;
        }
        double flop = n * h->row_flop + n * n / 2 * h->attention_flop;
        if (rc == ST_OK)
            rig_row(r, "%s,%.0f,%.2f,%.0f,%.1f,%.3f", form(w), n, best, n / best * 1e3, flop / best / 1e9,
                    flop / best / 1e9 / rig_gemm(r, w->fp8 ? CU_E4M3 : CU_BF16));
    }
    rig_table_end(r);
    return rc;
}

/* ---- many requests ----------------------------------------------------------------------------------------------- */

static int requests_one(struct rig *r, struct hosted *h, const struct serving *w, const struct hosted_load *load)
{
    struct hosted_outcome o;
    struct err e = {0};
    if (hosted_drive(h, load, &o, &e) != ST_OK)
        return say("requests", &e);
    double steady = o.steady_s > 0 ? (double)o.steady_tokens / o.steady_s : 0;
    rig_row(r, "%s,%u,%u,%u,%u,%.1f,%.0f,%.0f,%.1f,%.2f,%.2f,%.0f,%s", form(w), load->concurrency, load->n_prompt,
            load->n_tokens, o.ended, o.seconds, (double)o.tokens / o.seconds, steady, o.ttft_ms, o.itl_ms, o.itl_p99_ms,
            o.steady_context, o.cut ? "cut short by its time limit" : "");
    return ST_OK;
}

static int requests(struct rig *r, struct hosted *h, const struct serving *w)
{
    uint32_t fit = h->n_blocks / (HOSTED_CONTEXT / 16);
    const struct hosted_load chat = {.concurrency = 200, .total = 600, .n_prompt = 200, .n_tokens = 200, .limit_s = 45};
    const struct hosted_load document = {
        .concurrency = fit < 38 ? fit : 38, .total = fit < 38 ? fit : 38, .n_prompt = 20000, .n_tokens = 2000, .limit_s = 110};
    rig_table(r, w->fp8 ? "requests_fp8" : "requests_bf16",
              "form,concurrency,isl,osl,ended,seconds,tok_s,steady_tok_s,ttft_p50_ms,itl_p50_ms,itl_p99_ms,steady_context,note");
    int rc = requests_one(r, h, w, &chat);
    if (rc == ST_OK && fit == 0)
        rig_row(r, "%s,0,20000,2000,0,,,,,,,,skipped: no room for one request's KV", form(w));
    else if (rc == ST_OK)
        rc = requests_one(r, h, w, &document);
    rig_table_end(r);
    return rc;
}

int serving_bench(struct rig *r, const struct serving *what)
{
    struct hosted h;
    struct err e = {0};
    if (hosted_open(&h, what->fp8, &e) != ST_OK)
        return say(form(what), &e);
    printf("%s weights on the device in %.1f s; %u KV blocks\n", form(what), h.load_s, h.n_blocks);
    int rc = what->decode ? decode(r, &h, what) : ST_OK;
    if (rc == ST_OK && what->prefill)
        rc = prefill(r, &h, what);
    if (rc == ST_OK && what->requests)
        rc = requests(r, &h, what);
    hosted_close(&h);
    return rc;
}
