/* Replies are written forward, piece by piece: their shape is fixed, so a tree of JSON nodes would be built only to be
 * printed and freed, once per token and client. */
#include "api_reply.h"

#include "hash64.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

_Static_assert((int)ANSWER_CALLS_MAX == (int)API_TOOLS_MAX, "what is told can be sent back in a message");

static void put_head(struct buf *b, const struct api_head *h, const char *chat_object)
{
    buf_puts(b, "{\"id\":");
    buf_put_json(b, h->id);
    buf_printf(b, ",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":",
               h->endpoint == API_CHAT ? chat_object : "text_completion", h->created);
    buf_put_json(b, h->model);
    buf_puts(b, ",\"choices\":[");
}

static void put_usage(struct buf *b, const struct api_usage *u)
{
    buf_printf(b,
               "\"usage\":{\"prompt_tokens\":%" PRIu64 ",\"completion_tokens\":%" PRIu64
               ",\"total_tokens\":%" PRIu64 ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu64 "}}",
               u->prompt, u->completion, u->prompt + u->completion, u->cached);
}

/* JSON has no infinities; clients expect a very small number for an impossible token. */
static void put_logprob(struct buf *b, float v)
{
    buf_printf(b, "%.6g", isfinite(v) && v > -9999.0f ? (double)v : -9999.0);
}

static void put_chat_token(struct buf *b, const struct api_logprobs *l, int32_t token, float logprob)
{
    struct str s = l->bytes(l->ctx, token);
    buf_puts(b, "{\"token\":");
    buf_put_json(b, s);
    buf_puts(b, ",\"logprob\":");
    put_logprob(b, logprob);
    buf_puts(b, ",\"bytes\":[");
    for (size_t i = 0; i < s.n; i++)
        buf_printf(b, i ? ",%u" : "%u", (unsigned)(unsigned char)s.p[i]);
    buf_putc(b, ']');
}

static void put_chat_logprobs(struct buf *b, const struct api_logprobs *l)
{
    buf_puts(b, "{\"content\":[");
    for (size_t i = 0; i < l->n; i++) {
        const struct api_logprob *e = &l->entries[i];
        if (i)
            buf_putc(b, ',');
        put_chat_token(b, l, e->token, e->logprob);
        buf_puts(b, ",\"top_logprobs\":[");
        for (uint32_t k = 0; k < e->n_top; k++) {
            if (k)
                buf_putc(b, ',');
            put_chat_token(b, l, e->top[k].token, e->top[k].logprob);
            buf_putc(b, '}');
        }
        buf_puts(b, "]}");
    }
    buf_puts(b, "]}");
}

static void put_alternatives(struct buf *b, const struct api_logprobs *l, const struct api_logprob *e)
{
    buf_putc(b, '{');
    for (uint32_t k = 0; k < e->n_top; k++) {
        if (k)
            buf_putc(b, ',');
        buf_put_json(b, l->bytes(l->ctx, e->top[k].token));
        buf_putc(b, ':');
        put_logprob(b, e->top[k].logprob);
    }
    buf_putc(b, '}');
}

static void put_text_logprobs(struct buf *b, const struct api_logprobs *l)
{
    buf_puts(b, "{\"tokens\":[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            buf_putc(b, ',');
        buf_put_json(b, l->bytes(l->ctx, l->entries[i].token));
    }
    buf_puts(b, "],\"token_logprobs\":[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            buf_putc(b, ',');
        put_logprob(b, l->entries[i].logprob);
    }
    buf_puts(b, "],\"top_logprobs\":[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            buf_putc(b, ',');
        put_alternatives(b, l, &l->entries[i]);
    }
    buf_puts(b, "],\"text_offset\":[");
    uint64_t at = l->text_offset;
    for (size_t i = 0; i < l->n; i++) {
        buf_printf(b, i ? ",%" PRIu64 : "%" PRIu64, at);
        at += l->bytes(l->ctx, l->entries[i].token).n;
    }
    buf_puts(b, "]}");
}

/* Nine letters and digits, as the templates of Mistral's models will have it; all others take any text. */
static void put_call_id(struct buf *b, const struct api_head *h, uint32_t choice, uint32_t call)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    uint64_t v = hash64(h->id.p, h->id.n, (uint64_t)choice << 32 | call);
    for (int i = 0; i < 9; i++, v /= 36)
        buf_putc(b, digits[v % 36]);
}

static void put_calls(struct buf *b, const struct api_head *h, const struct api_choice *c, bool delta)
{
    buf_puts(b, "\"tool_calls\":[");
    for (uint32_t i = c->call; i < c->n_calls; i++) {
        buf_puts(b, i > c->call ? ",{" : "{");
        if (delta)
            buf_printf(b, "\"index\":%u,", i);
        buf_puts(b, "\"id\":\"");
        put_call_id(b, h, c->index, i);
        buf_puts(b, "\",\"type\":\"function\",\"function\":{\"name\":");
        buf_put_json(b, c->calls[i].name);
        buf_puts(b, ",\"arguments\":");
        buf_put_json(b, c->calls[i].arguments);
        buf_puts(b, "}}");
    }
    buf_putc(b, ']');
}

/* A message has a role and content, if need be null; a delta what it adds. */
static void put_message(struct buf *b, const struct api_head *h, const struct api_choice *c, bool delta)
{
    bool calls = c->call < c->n_calls, role = !delta || c->first;
    const char *sep = "";
    buf_puts(b, delta ? "\"delta\":{" : "\"message\":{");
    if (role)
        buf_puts(b, "\"role\":\"assistant\",");
    if (role && c->text.n == 0 && (calls || c->reasoning.n)) {
        buf_puts(b, "\"content\":null");
        sep = ",";
    } else if (role || c->text.n) {
        buf_puts(b, "\"content\":");
        buf_put_json(b, c->text);
        sep = ",";
    }
    if (c->reasoning.n) {
        buf_printf(b, "%s\"reasoning_content\":", sep);
        buf_put_json(b, c->reasoning);
        sep = ",";
    }
    if (calls) {
        buf_puts(b, sep);
        put_calls(b, h, c, delta);
    }
    buf_putc(b, '}');
}

static void put_choice_tail(struct buf *b, const struct api_head *h, const struct api_choice *c)
{
    buf_puts(b, ",\"logprobs\":");
    if (!c->logprobs)
        buf_puts(b, "null");
    else if (h->endpoint == API_CHAT)
        put_chat_logprobs(b, c->logprobs);
    else
        put_text_logprobs(b, c->logprobs);
    if (c->finish)
        buf_printf(b, ",\"finish_reason\":\"%s\"}", c->finish);
    else
        buf_puts(b, ",\"finish_reason\":null}");
}

void api_put_reply_begin(struct buf *b, const struct api_head *h)
{
    put_head(b, h, "chat.completion");
}

void api_put_reply_choice(struct buf *b, const struct api_head *h, const struct api_choice *c, bool comma)
{
    if (comma)
        buf_putc(b, ',');
    buf_printf(b, "{\"index\":%u,", c->index);
    if (h->endpoint == API_CHAT) {
        put_message(b, h, c, false);
    } else {
        buf_puts(b, "\"text\":");
        buf_put_json(b, c->text);
    }
    put_choice_tail(b, h, c);
}

void api_put_reply_end(struct buf *b, const struct api_usage *u)
{
    buf_puts(b, "],");
    put_usage(b, u);
    buf_putc(b, '}');
}

static void put_frame_head(struct buf *b, const struct api_head *h)
{
    buf_puts(b, "data: ");
    put_head(b, h, "chat.completion.chunk");
}

void api_put_frame(struct buf *b, const struct api_head *h, const struct api_choice *c)
{
    put_frame_head(b, h);
    buf_printf(b, "{\"index\":%u,", c->index);
    if (h->endpoint == API_COMPLETIONS) {
        buf_puts(b, "\"text\":");
        buf_put_json(b, c->text);
    } else {
        put_message(b, h, c, true);
    }
    put_choice_tail(b, h, c);
    buf_puts(b, h->usage_null ? "],\"usage\":null}\n\n" : "]}\n\n");
}

void api_put_usage_frame(struct buf *b, const struct api_head *h, const struct api_usage *u)
{
    put_frame_head(b, h);
    buf_puts(b, "],");
    put_usage(b, u);
    buf_puts(b, "}\n\n");
}

void api_put_done_frame(struct buf *b)
{
    buf_puts(b, "data: [DONE]\n\n");
}

void api_put_error_frame(struct buf *b, int status, const char *text)
{
    buf_puts(b, "data: ");
    api_put_error(b, status, text);
    buf_puts(b, "\n\n");
}

/* A text that names a field begins with its path: lower-case words, dots, indices, then ": ". */
static struct str field_of(const char *text)
{
    size_t n = 0;
    while (text[n] &&
           (islower((unsigned char)text[n]) || isdigit((unsigned char)text[n]) || strchr("_.[]", text[n])))
        n++;
    return n && islower((unsigned char)text[0]) && text[n] == ':' ? (struct str){text, n} : (struct str){0};
}

void api_put_error(struct buf *b, int status, const char *text)
{
    bool asked = status == ST_EINVAL || status == ST_EUNSUP || status == ST_ENOENT;
    struct str field = asked ? field_of(text) : (struct str){0};
    buf_puts(b, "{\"error\":{\"message\":");
    buf_put_json(b, str_from(text));
    buf_printf(b, ",\"type\":\"%s\",\"param\":", status_type(status));
    if (field.n)
        buf_put_json(b, field);
    else
        buf_puts(b, "null");
    buf_printf(b, ",\"code\":%d}}", status_http(status));
}

void api_put_model(struct buf *b, const struct api_model *m)
{
    buf_puts(b, "{\"id\":");
    buf_put_json(b, m->id);
    buf_printf(b,
               ",\"object\":\"model\",\"created\":%" PRId64 ",\"owned_by\":\"stator\",\"root\":", m->created);
    buf_put_json(b, m->root);
    buf_printf(b, ",\"parent\":null,\"max_model_len\":%u}", m->max_model_len);
}

void api_put_models(struct buf *b, const struct api_model *models, size_t n)
{
    buf_puts(b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_putc(b, ',');
        api_put_model(b, &models[i]);
    }
    buf_puts(b, "]}");
}
