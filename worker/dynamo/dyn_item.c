/* Items are written with as few members as frontends need. Errors are typed: the type decides what the client sees, whether the
 * frontend tries another worker, and whether it leaves this one alone for seconds, so what is the request's fault must never be
 * told as the worker's. */
#include "dyn_item.h"

#include "dyn_msgpack.h"

/* What is impossible has no logarithm that JSON could carry. */
static double finite(float logprob)
{
    return logprob < -9999.0f ? -9999.0 : (double)logprob;
}

/* A rank counts from 1; the chosen token stands behind the alternatives when it is none of them. */
static void put_alternative(struct buf *b, uint32_t rank, int32_t token, float logprob)
{
    dyn_msgpack_put_map(b, 4);
    dyn_msgpack_put_key(b, "rank");
    dyn_msgpack_put_uint(b, rank);
    dyn_msgpack_put_key(b, "token_id");
    dyn_msgpack_put_int(b, token);
    dyn_msgpack_put_key(b, "token");
    dyn_msgpack_put_nil(b);
    dyn_msgpack_put_key(b, "logprob");
    dyn_msgpack_put_float(b, finite(logprob));
}

static void put_logprobs(struct buf *b, const struct be_sample_out *s)
{
    bool among = false;
    for (uint32_t i = 0; i < s->n_top; i++)
        among |= s->top[i].token == s->token;
    dyn_msgpack_put_key(b, "log_probs");
    dyn_msgpack_put_array(b, 1);
    dyn_msgpack_put_float(b, finite(s->logprob));
    dyn_msgpack_put_key(b, "top_logprobs");
    dyn_msgpack_put_array(b, 1);
    dyn_msgpack_put_array(b, s->n_top + !among);
    for (uint32_t i = 0; i < s->n_top; i++)
        put_alternative(b, i + 1, s->top[i].token, s->top[i].logprob);
    if (!among)
        put_alternative(b, s->n_top + 1, s->token, s->logprob);
}

void dyn_item_put_token(struct buf *b, uint32_t index, const struct be_sample_out *sample, bool logprobs)
{
    dyn_msgpack_put_map(b, 1);
    dyn_msgpack_put_key(b, "data");
    dyn_msgpack_put_map(b, logprobs ? 4 : 2);
    dyn_msgpack_put_key(b, "token_ids");
    dyn_msgpack_put_array(b, 1);
    dyn_msgpack_put_int(b, sample->token);
    dyn_msgpack_put_key(b, "index");
    dyn_msgpack_put_uint(b, index);
    if (logprobs)
        put_logprobs(b, sample);
}

static void put_usage(struct buf *b, const struct dyn_usage *u)
{
    dyn_msgpack_put_key(b, "completion_usage");
    dyn_msgpack_put_map(b, 4);
    dyn_msgpack_put_key(b, "prompt_tokens");
    dyn_msgpack_put_uint(b, u->prompt);
    dyn_msgpack_put_key(b, "completion_tokens");
    dyn_msgpack_put_uint(b, u->completion);
    dyn_msgpack_put_key(b, "total_tokens");
    dyn_msgpack_put_uint(b, u->prompt + u->completion);
    dyn_msgpack_put_key(b, "prompt_tokens_details");
    dyn_msgpack_put_map(b, 1);
    dyn_msgpack_put_key(b, "cached_tokens");
    dyn_msgpack_put_uint(b, u->cached);
}

void dyn_item_put_end(struct buf *b, uint32_t index, bool by_length, const struct dyn_usage *usage)
{
    dyn_msgpack_put_map(b, 1);
    dyn_msgpack_put_key(b, "data");
    dyn_msgpack_put_map(b, usage ? 4 : 3);
    dyn_msgpack_put_key(b, "token_ids");
    dyn_msgpack_put_array(b, 0);
    dyn_msgpack_put_key(b, "index");
    dyn_msgpack_put_uint(b, index);
    dyn_msgpack_put_key(b, "finish_reason");
    dyn_msgpack_put_key(b, by_length ? "length" : "stop");
    if (usage)
        put_usage(b, usage);
}

/* ---- errors ------------------------------------------------------------------------------------------------------ */

struct kind {
    int status;
    const char *type;
    bool backend; /* {"Backend": type}: the frontend looks for another worker */
};
static const struct kind kinds[] = {
    {ST_EINVAL, "InvalidArgument", false},   {ST_EFORMAT, "InvalidArgument", false},
    {ST_ETOOBIG, "InvalidArgument", false},  {ST_ENOENT, "NotFound", false},
    {ST_EUNSUP, "NotImplemented", false},    {ST_EBUSY, "ResourceExhausted", false},
    {ST_ENOMEM, "ResourceExhausted", false}, {ST_ECANCEL, "Cancelled", false},
    {ST_EDRAIN, "EngineShutdown", true},     {ST_EDEVICE, "EngineShutdown", true},
};

static void put_type(struct buf *b, int status)
{
    struct kind k = {.type = "Internal"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].status == status)
            k = kinds[i];
    if (k.backend) {
        dyn_msgpack_put_map(b, 1);
        dyn_msgpack_put_key(b, "Backend");
    }
    dyn_msgpack_put_key(b, k.type);
}

static void put_public(struct buf *b, const struct err *e, uint64_t limit, uint64_t actual)
{
    bool context = e->status == ST_ETOOBIG;
    dyn_msgpack_put_map(b, context ? 3 : 2);
    dyn_msgpack_put_key(b, "type");
    dyn_msgpack_put_key(b, context ? "context_length" : "message");
    if (context) {
        dyn_msgpack_put_key(b, "limit");
        dyn_msgpack_put_uint(b, limit);
        dyn_msgpack_put_key(b, "actual");
        dyn_msgpack_put_uint(b, actual);
    } else {
        dyn_msgpack_put_key(b, "message");
        dyn_msgpack_put_key(b, e->text);
    }
}

void dyn_item_put_error(struct buf *b, const struct err *e, uint64_t limit, uint64_t actual)
{
    dyn_msgpack_put_map(b, 3);
    dyn_msgpack_put_key(b, "event");
    dyn_msgpack_put_key(b, "error");
    dyn_msgpack_put_key(b, "comment");
    dyn_msgpack_put_array(b, 1);
    dyn_msgpack_put_key(b, e->text);
    dyn_msgpack_put_key(b, "error");
    dyn_msgpack_put_map(b, 3);
    dyn_msgpack_put_key(b, "error_type");
    put_type(b, e->status);
    dyn_msgpack_put_key(b, "message");
    dyn_msgpack_put_key(b, e->text);
    dyn_msgpack_put_key(b, "public");
    put_public(b, e, limit, actual);
}
