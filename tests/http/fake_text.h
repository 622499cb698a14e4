/* One token per byte, and a template that joins contents with '|'. Stands in for tok.h and chat.h. One token above the bytes is a
 * control token that marks tool calls: the byte 1 of a prompt. */
#ifndef TESTS_FAKE_TEXT_H
#define TESTS_FAKE_TEXT_H

#include "chat.h"
#include "tok.h"

#include <string.h>

enum { FAKE_MARK = 299 };

static char fake_bytes[256];
static struct answer_form fake_form; /* of the template */

struct answer_form chat_form(const struct chat *c)
{
    (void)c;
    return fake_form;
}

bool tok_is_special(const struct tok *t, tok_t id)
{
    (void)t;
    return id >= 256;
}

int tok_encode(const struct tok *t, struct str text, unsigned flags, tok_t *ids_out, size_t cap,
               size_t *n_out)
{
    (void)t, (void)flags;
    if (text.n > cap)
        return ST_NOSPACE;
    for (size_t i = 0; i < text.n; i++)
        ids_out[i] = text.p[i] == 1 ? FAKE_MARK : (unsigned char)text.p[i];
    *n_out = text.n;
    return ST_OK;
}

struct str tok_bytes(const struct tok *t, tok_t id, bool show_special)
{
    (void)t, (void)show_special;
    return id < 256 ? (struct str){&fake_bytes[id], 1} : id == FAKE_MARK ? STR_LIT("<tool_call>") : STR_LIT("<|end|>");
}

void tok_stream_init(struct tok_stream *s, bool show_special)
{
    *s = (struct tok_stream){.show_special = show_special};
}

int tok_stream_push(struct tok_stream *s, const struct tok *t, tok_t id, struct buf *out)
{
    if (id == FAKE_MARK)
        return s->show_special ? buf_puts(out, "<tool_call>") : ST_OK;
    (void)t;
    s->held[s->n_held++] = (char)id;
    struct str held = {s->held, s->n_held};
    if (utf8_complete(held) < held.n && held.n < TOK_STREAM_HOLD)
        return ST_OK;
    s->n_held = 0;
    return utf8_valid(held) ? buf_put(out, held.p, held.n) : buf_puts(out, "\xef\xbf\xbd");
}

int tok_stream_flush(struct tok_stream *s, struct buf *out)
{
    return s->n_held ? buf_puts(out, "\xef\xbf\xbd") : ST_OK;
}

int chat_render(const struct chat *c, const struct chat_input *in, struct buf *out, struct err *e)
{
    (void)c;
    for (const cJSON *m = in->messages->child; m; m = m->next) {
        const cJSON *content = json_get(m, "content");
        if (cJSON_IsString(content) && strcmp(content->valuestring, "raise") == 0)
            return err_set(e, ST_EINVAL, "the template raised");
        if (cJSON_IsString(content) && strcmp(content->valuestring, "loop") == 0)
            return ST_ETOOBIG;
        buf_puts(out, m == in->messages->child ? "" : "|");
        buf_puts(out, cJSON_IsString(content) ? content->valuestring : "");
    }
    return out->failed;
}

#endif
