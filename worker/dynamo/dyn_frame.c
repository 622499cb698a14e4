/* Framing only: what a request means is dyn_request's, sockets are dyn_plane's and dyn_stream's. Parsers take all bytes that
 * are there and start over when more have come: as they read nothing but lengths, that costs nothing, and a frame may arrive in
 * any pieces without a state machine that could be left in the middle. */
#include "dyn_frame.h"

#include "dyn_json.h"
#include "json.h"

#include <string.h>

static uint64_t get_be(const char *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

static void set_be(char *out, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        out[i] = (char)(v >> 8 * (bytes - 1 - i));
}

/* One length-prefixed piece at `*at`. */
static int piece(struct str *out, const char *p, size_t n, size_t *at, unsigned length_bytes, size_t max)
{
    if (n - *at < length_bytes)
        return ST_AGAIN;
    uint64_t length = get_be(p + *at, length_bytes);
    if (length > max)
        return ST_EFORMAT;
    if (n - *at - length_bytes < length)
        return ST_AGAIN;
    *out = (struct str){p + *at + length_bytes, (size_t)length};
    *at += length_bytes + (size_t)length;
    return ST_OK;
}

int dyn_frame_parse(struct dyn_frame *out, const char *p, size_t n)
{
    size_t at = 0;
    int st = piece(&out->path, p, n, &at, 2, DYN_PATH_MAX);
    if (!st)
        st = piece(&out->header, p, n, &at, 2, DYN_HEADER_MAX);
    if (!st)
        st = piece(&out->payload, p, n, &at, 4, DYN_FRAME_MAX);
    out->bytes = at;
    return st;
}

void dyn_frame_put_ack(struct buf *b, struct str text)
{
    char length[4];
    set_be(length, text.n, sizeof length);
    buf_put(b, length, sizeof length);
    buf_put(b, text.p, text.n);
}

int dyn_parts_parse(struct dyn_parts *out, const char *p, size_t n, size_t header_max, size_t data_max)
{
    if (n < DYN_PART_BYTES)
        return ST_AGAIN;
    uint64_t header = get_be(p, 8), data = get_be(p + 8, 8);
    if (header > header_max || data > data_max)
        return ST_EFORMAT;
    if (n - DYN_PART_BYTES < header + data)
        return ST_AGAIN;
    out->header = (struct str){p + DYN_PART_BYTES, (size_t)header};
    out->data = (struct str){p + DYN_PART_BYTES + header, (size_t)data};
    out->bytes = DYN_PART_BYTES + (size_t)(header + data);
    return ST_OK;
}

/* ---- control ----------------------------------------------------------------------------------------------------- */

static int copy_field(char *out, size_t max, const cJSON *obj, const char *name, struct err *e)
{
    struct str s = {0};
    int st = json_need_str(obj, name, &s, e);
    if (st)
        return st;
    if (s.n == 0 || s.n >= max)
        return err_set(e, ST_EFORMAT, "%s: empty, or %zu bytes and more", name, max);
    memcpy(out, s.p, s.n);
    out[s.n] = 0;
    return ST_OK;
}

static int parse_info(struct dyn_control *out, struct str text, struct err *e)
{
    cJSON *info = NULL;
    struct str type = STR_LIT("response");
    int st = json_parse(&info, text, e);
    if (!st)
        st = copy_field(out->address, sizeof out->address, info, "address", e);
    if (!st)
        st = copy_field(out->subject, sizeof out->subject, info, "subject", e);
    if (!st)
        st = json_opt_str(info, "stream_type", &type, e);
    if (!st && !str_eqz(type, "response"))
        st = err_set(e, ST_EUNSUP, "stream_type %.*s", (int)(type.n < 32 ? type.n : 32), type.p);
    json_free(info);
    return st;
}

static int parse_root(struct dyn_control *out, const cJSON *root, struct err *e)
{
    struct str codec = STR_LIT("json"), transport = {0}, info = {0};
    const cJSON *connection = json_get(root, "connection_info");
    int st = copy_field(out->id, sizeof out->id, root, "id", e);
    if (!st)
        st = json_opt_str(root, "payload_codec", &codec, e);
    if (!st)
        st = json_need_str(connection, "transport", &transport, e);
    if (st)
        return st;
    if (!str_eqz(transport, "tcp_server"))
        return err_set(e, ST_EUNSUP, "response transport %.*s, only tcp_server is spoken here",
                       (int)(transport.n < 48 ? transport.n : 48), transport.p);
    if (!str_eqz(codec, "json") && !str_eqz(codec, "msgpack"))
        return err_set(e, ST_EUNSUP, "payload codec %.*s, only json and msgpack are spoken here",
                       (int)(codec.n < 48 ? codec.n : 48), codec.p);
    out->codec = str_eqz(codec, "msgpack") ? DYN_CODEC_MSGPACK : DYN_CODEC_JSON;
    if (json_get(root, "request_stream_connection_info"))
        return err_set(e, ST_EUNSUP, "requests that are streams");
    st = json_need_str(connection, "info", &info, e);
    return st ? st : parse_info(out, info, e);
}

int dyn_control_parse(struct dyn_control *out, struct str json, struct err *e)
{
    cJSON *root = NULL;
    *out = (struct dyn_control){0};
    if (json.n > DYN_HEADER_MAX)
        return err_set(e, ST_EFORMAT, "control message of more than %d bytes", DYN_HEADER_MAX);
    int st = json_parse(&root, json, e);
    if (!st)
        st = parse_root(out, root, e);
    json_free(root);
    return st == ST_EINVAL ? ST_EFORMAT : st;
}

/* ---- response stream --------------------------------------------------------------------------------------------- */

static void put_parts_head(struct buf *b, size_t header, size_t data)
{
    char head[DYN_PART_BYTES] = {0};
    set_be(head, header, 8);
    set_be(head + 8, data, 8);
    buf_put(b, head, sizeof head);
}

static void put_header(struct buf *b, struct str header)
{
    put_parts_head(b, header.n, 0);
    buf_put(b, header.p, header.n);
}

void dyn_frame_put_handshake(struct buf *b, const char *subject)
{
    struct buf text = {0};
    buf_puts(&text, "{\"subject\":");
    buf_put_json(&text, str_from(subject));
    buf_puts(&text, ",\"stream_type\":\"response\"}");
    put_header(b, buf_str(&text));
    if (text.failed)
        b->failed = text.failed;
    buf_fini(&text);
}

void dyn_frame_put_prologue(struct buf *b)
{
    put_header(b, STR_LIT("{\"error\":null}"));
}

/* The length stands before the item and is known after it: what is written begins with a head of zeros, which is then filled in.
 * Every token passes here, so what stands around it is written as it is on the wire. */
int dyn_frame_put_item(struct buf *b, enum dyn_codec codec, struct str item)
{
    static const char before[] = "\x82\xa4"
                                 "data",
                      after[] = "\xae"
                                "complete_final"
                                "\xc2";
    size_t head = b->n;
    put_parts_head(b, 0, 0);
    if (codec == DYN_CODEC_MSGPACK) {
        buf_put(b, before, sizeof before - 1);
        buf_put(b, item.p, item.n);
        buf_put(b, after, sizeof after - 1);
    } else {
        struct dyn_msgpack m = dyn_msgpack_of(item.p, item.n);
        buf_puts(b, "{\"data\":");
        int st = dyn_json_from_msgpack(&m, b);
        if (st)
            return b->failed = st;
        buf_puts(b, ",\"complete_final\":false}");
    }
    if (b->failed)
        return b->failed;
    set_be(b->p + head + 8, b->n - head - DYN_PART_BYTES, 8);
    return ST_OK;
}

void dyn_frame_put_final(struct buf *b, enum dyn_codec codec)
{
    static const char json[] = "{\"complete_final\":true}", packed[] = "\x81\xae"
                                                                       "complete_final"
                                                                       "\xc3";
    struct str last = codec == DYN_CODEC_MSGPACK ? STR_LIT(packed) : STR_LIT(json);
    put_parts_head(b, 0, last.n);
    buf_put(b, last.p, last.n);
    put_header(b, STR_LIT("\"sentinel\""));
}

bool dyn_frame_ends(struct str header)
{
    return str_eqz(header, "\"stop\"") || str_eqz(header, "\"kill\"");
}
