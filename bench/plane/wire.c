/* Requests go out with the members that a frontend sends for a plain completion; of what comes back only tokens, usage and errors
 * are looked at, so values are walked and not built. */
#include "wire.h"

#include "dynamo/request_frame.h"
#include "json.h"

#include <assert.h>
#include <string.h>

/* ---- out --------------------------------------------------------------------------------------------------------- */

static void put_map(struct buf *b, unsigned n)
{
    buf_putc(b, (char)(0x80 | n));
}

static void put_text(struct buf *b, const char *z)
{
    size_t n = strlen(z);
    assert(n < 256);
    buf_putc(b, (char)0xd9);
    put_be(b, n, 1);
    buf_put(b, z, n);
}

static void put_uint(struct buf *b, uint32_t v)
{
    buf_putc(b, (char)0xce);
    put_be(b, v, 4);
}

static void put_body(struct buf *b, const struct wire_request *r)
{
    put_map(b, 7);
    put_text(b, "model");
    put_text(b, r->model);
    put_text(b, "token_ids");
    buf_putc(b, (char)0xdd);
    put_be(b, r->n_tokens, 4);
    for (uint32_t i = 0; i < r->n_tokens; i++)
        put_uint(b, r->tokens[i]);
    put_text(b, "stop_conditions");
    put_map(b, 2);
    put_text(b, "max_tokens");
    put_uint(b, r->max_tokens);
    put_text(b, "ignore_eos");
    buf_putc(b, (char)(r->ignore_eos ? 0xc3 : 0xc2));
    put_text(b, "sampling_options");
    put_map(b, 1);
    put_text(b, "temperature");
    put_uint(b, 0);
    put_text(b, "output_options");
    put_map(b, 0);
    put_text(b, "eos_token_ids");
    buf_putc(b, (char)0x90);
    put_text(b, "annotations");
    buf_putc(b, (char)0x90);
}

void wire_put_request(struct buf *b, const struct wire_request *r)
{
    struct buf control = {0}, body = {0};
    buf_printf(
        &control,
        "{\"id\":\"%s\",\"request_type\":\"single_in\",\"response_type\":\"many_out\",\"payload_codec\":"
        "\"msgpack\","
        "\"connection_info\":{\"transport\":\"tcp_server\",\"info\":\"{\\\"address\\\":\\\"127.0.0.1:%u\\\","
        "\\\"subject\\\":\\\"%s\\\",\\\"context\\\":\\\"%s\\\",\\\"stream_type\\\":\\\"response\\\"}\"}}",
        r->subject, r->port, r->subject, r->subject);
    put_body(&body, r);
    put_request_frame(b, r->path, "{}", buf_str(&control), buf_str(&body));
    if (control.failed || body.failed)
        b->failed = ST_ENOMEM;
    buf_fini(&control);
    buf_fini(&body);
}

/* ---- in: values -------------------------------------------------------------------------------------------------- */

struct walk {
    const uint8_t *p, *end;
    bool bad;
};

enum kind { OTHER, NUMBER, TEXT, ARRAY, MAP };

struct value {
    enum kind kind;
    uint64_t n; /* the number, or what the text, array or map has */
};

static uint64_t get_be(const char *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

static uint64_t take(struct walk *w, unsigned bytes)
{
    if (w->bad || (size_t)(w->end - w->p) < bytes) {
        w->bad = true;
        return 0;
    }
    w->p += bytes;
    return get_be((const char *)w->p - bytes, bytes);
}

/* The head of the next value; a text's bytes and the members of arrays and maps follow it. */
static struct value head(struct walk *w)
{
    static const uint8_t number_bytes[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8}; /* 0xca .. 0xd3 */
    uint8_t t = (uint8_t)take(w, 1);
    if (t < 0x80 || t >= 0xe0)
        return (struct value){NUMBER, t & 0x7f};
    if (t < 0x90)
        return (struct value){MAP, t & 15};
    if (t < 0xa0)
        return (struct value){ARRAY, t & 15};
    if (t < 0xc0)
        return (struct value){TEXT, t & 31};
    if (t == 0xc0 || t == 0xc2 || t == 0xc3)
        return (struct value){OTHER, 0};
    if (t >= 0xc4 && t <= 0xc6)
        return (struct value){TEXT, take(w, 1u << (t - 0xc4))};
    if (t >= 0xca && t <= 0xd3)
        return (struct value){NUMBER, take(w, number_bytes[t - 0xca])};
    if (t >= 0xd9 && t <= 0xdb)
        return (struct value){TEXT, take(w, 1u << (t - 0xd9))};
    if (t >= 0xdc)
        return (struct value){t < 0xde ? ARRAY : MAP, take(w, t & 1 ? 4 : 2)};
    w->bad = true; /* an extension type */
    return (struct value){OTHER, 0};
}

static struct str text_of(struct walk *w, struct value v)
{
    if (w->bad || v.kind != TEXT || (uint64_t)(w->end - w->p) < v.n) {
        w->bad = true;
        return (struct str){"", 0};
    }
    w->p += v.n;
    return (struct str){(const char *)w->p - v.n, (size_t)v.n};
}

static void skip(struct walk *w, int nesting)
{
    struct value v = head(w);
    w->bad |= nesting == 0;
    if (v.kind == TEXT)
        text_of(w, v);
    uint64_t n = v.kind == MAP ? 2 * v.n : v.kind == ARRAY ? v.n : 0;
    for (uint64_t i = 0; i < n && !w->bad; i++)
        skip(w, nesting - 1);
}

/* For each member of the map that comes next: `member` takes the value, or leaves it for us to skip. */
static void each(struct walk *w, int nesting,
                 bool (*member)(struct walk *w, struct str key, int nesting, struct wire_message *m),
                 struct wire_message *m)
{
    struct value v = head(w);
    w->bad |= v.kind != MAP || nesting == 0;
    for (uint64_t i = 0; i < v.n && !w->bad; i++) {
        struct str key = text_of(w, head(w));
        if (!w->bad && !member(w, key, nesting - 1, m))
            skip(w, nesting - 1);
    }
}

static bool in_details(struct walk *w, struct str key, int nesting, struct wire_message *m)
{
    (void)nesting;
    if (!str_eqz(key, "cached_tokens"))
        return false;
    m->cached = (int64_t)head(w).n;
    return true;
}

static bool in_usage(struct walk *w, struct str key, int nesting, struct wire_message *m)
{
    if (str_eqz(key, "prompt_tokens"))
        m->prompt = (int64_t)head(w).n;
    else if (str_eqz(key, "completion_tokens"))
        m->output = (int64_t)head(w).n;
    else if (str_eqz(key, "prompt_tokens_details"))
        each(w, nesting, in_details, m);
    else
        return false;
    return true;
}

static bool in_output(struct walk *w, struct str key, int nesting, struct wire_message *m)
{
    if (str_eqz(key, "completion_usage")) {
        each(w, nesting, in_usage, m);
        return true;
    }
    if (!str_eqz(key, "token_ids"))
        return false;
    struct value v = head(w);
    w->bad |= v.kind != ARRAY;
    m->n_tokens += (uint32_t)v.n;
    for (uint64_t i = 0; i < v.n && !w->bad; i++)
        skip(w, nesting);
    return true;
}

static bool in_item(struct walk *w, struct str key, int nesting, struct wire_message *m)
{
    m->error |= str_eqz(key, "error");
    if (!str_eqz(key, "data"))
        return false;
    each(w, nesting, in_output, m);
    return true;
}

static bool in_message(struct walk *w, struct str key, int nesting, struct wire_message *m)
{
    if (!str_eqz(key, "data"))
        return false;
    each(w, nesting, in_item, m);
    return true;
}

/* ---- in: messages ------------------------------------------------------------------------------------------------ */

int wire_ack(struct str *text, const char *p, size_t n, size_t *used)
{
    if (n < 4)
        return ST_AGAIN;
    uint64_t length = get_be(p, 4);
    if (length > WIRE_PART_MAX)
        return ST_EFORMAT;
    if (n - 4 < length)
        return ST_AGAIN;
    *text = (struct str){p + 4, (size_t)length};
    *used = 4 + (size_t)length;
    return ST_OK;
}

/* A handshake, the prologue or the sentinel. */
static int read_header(struct wire_message *m, struct str header)
{
    struct err e;
    struct str subject = {0};
    cJSON *root = NULL;
    m->sentinel = str_eqz(header, "\"sentinel\"");
    if (m->sentinel)
        return ST_OK;
    if (json_parse(&root, header, &e))
        return ST_EFORMAT;
    const cJSON *error = json_get(root, "error");
    m->error = error && !cJSON_IsNull(error);
    int rc = json_opt_str(root, "subject", &subject, &e);
    if (rc == ST_OK && subject.n < sizeof m->subject && subject.n)
        memcpy(m->subject, subject.p, subject.n);
    json_free(root);
    return rc == ST_OK && subject.n < sizeof m->subject ? ST_OK : ST_EFORMAT;
}

int wire_next(struct wire_message *out, const char *p, size_t n, size_t *used)
{
    *out = (struct wire_message){.prompt = -1, .output = -1, .cached = -1};
    if (n < 24)
        return ST_AGAIN;
    uint64_t header = get_be(p, 8), data = get_be(p + 8, 8);
    if (header > WIRE_PART_MAX || data > WIRE_PART_MAX)
        return ST_EFORMAT;
    if (n - 24 < header + data)
        return ST_AGAIN;
    *used = 24 + (size_t)(header + data);
    if (header)
        return read_header(out, (struct str){p + 24, (size_t)header});
    struct walk w = {(const uint8_t *)p + 24, (const uint8_t *)p + *used, false};
    each(&w, WIRE_NESTING, in_message, out);
    return w.bad || w.p != w.end ? ST_EFORMAT : ST_OK;
}
