/* The load generator shares two cores with the server it measures, so the reader touches each byte once: header and
 * chunk-size lines go through one small line buffer, body bytes are cut into SSE lines by memchr, and only "data:"
 * lines reach the JSON parser. Nothing here reads a socket: the tests feed it bytes one at a time.
 *
 * Rejected: libcurl (a callback per write, and its own event loop beside ours), and counting "data:" lines without
 * parsing them (a first chat event carries a role and no text; usage would have to be guessed). */
#include "reply.h"

#include "json.h"
#include "mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void reply_reset(struct reply *r)
{
    buf_reset(&r->line);
    buf_reset(&r->sse_line);
    buf_reset(&r->text);
    struct reply keep = {.line = r->line,
                         .sse_line = r->sse_line,
                         .text = r->text,
                         .gap_us = r->gap_us,
                         .gap_cap = r->gap_cap};
    *r = keep;
    r->line.limit = r->sse_line.limit = REPLY_LINE_LIMIT;
    r->text.limit = REPLY_TEXT_LIMIT;
}

void reply_fini(struct reply *r)
{
    buf_fini(&r->line);
    buf_fini(&r->sse_line);
    buf_fini(&r->text);
    mem_free(r->gap_us);
    *r = (struct reply){0};
}

static int note_text(struct reply *r, int64_t now_ns)
{
    if (r->events == 0) {
        r->first_ns = now_ns;
    } else {
        if (r->events > r->gap_cap) {
            uint32_t cap = r->gap_cap ? r->gap_cap * 2 : 256;
            uint32_t *gap = mem_realloc(r->gap_us, cap * sizeof *gap);
            if (!gap)
                return ST_ENOMEM;
            r->gap_us = gap;
            r->gap_cap = cap;
        }
        r->gap_us[r->events - 1] = (uint32_t)((now_ns - r->last_ns) / 1000);
    }
    r->last_ns = now_ns;
    r->events++;
    return ST_OK;
}

static int read_usage(struct reply *r, const cJSON *root, struct err *e)
{
    const cJSON *usage = json_get(root, "usage");
    if (!usage || cJSON_IsNull(usage))
        return ST_OK;
    int rc = json_opt_int(usage, "prompt_tokens", 0, INT32_MAX, &r->prompt_tokens, e);
    if (rc == ST_OK)
        rc = json_opt_int(usage, "completion_tokens", 0, INT32_MAX, &r->output_tokens, e);
    const cJSON *details = json_get(usage, "prompt_tokens_details");
    if (rc == ST_OK && details)
        rc = json_opt_int(details, "cached_tokens", 0, INT32_MAX, &r->cached_tokens, e);
    r->has_usage = rc == ST_OK;
    return rc;
}

static bool has_text(const cJSON *root)
{
    const cJSON *choice = NULL;
    cJSON_ArrayForEach(choice, json_get(root, "choices"))
    {
        const cJSON *text = json_get(choice, "text");
        if (!text)
            text = json_get(json_get(choice, "delta"), "content");
        if (cJSON_IsString(text) && text->valuestring[0])
            return true;
    }
    return false;
}

static int take_data(struct reply *r, struct str data, int64_t now_ns, struct err *e)
{
    if (str_eqz(data, "[DONE]")) {
        r->end_mark = true;
        return ST_OK;
    }
    cJSON *root;
    int rc = json_parse(&root, data, e);
    if (rc != ST_OK)
        return err_set(e, ST_EFORMAT, "event stream: data is no JSON: %.100s", e ? e->text : "");
    const cJSON *error = json_get(root, "error");
    if (error && !cJSON_IsNull(error)) {
        struct str message = STR_LIT("no message");
        json_opt_str(error, "message", &message, NULL);
        rc = err_set(e, ST_EIO, "error in the stream: %.*s", (int)(message.n < 160 ? message.n : 160),
                     message.p);
    } else {
        if (has_text(root))
            rc = note_text(r, now_ns);
        if (rc == ST_OK)
            rc = read_usage(r, root, e);
    }
    json_free(root);
    return rc;
}

static int take_sse_line(struct reply *r, struct str line, int64_t now_ns, struct err *e)
{
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    if (line.n < 5 || memcmp(line.p, "data:", 5) != 0)
        return ST_OK; /* comments, event names, and the empty line between events */
    size_t skip = line.n > 5 && line.p[5] == ' ' ? 6 : 5;
    return take_data(r, (struct str){line.p + skip, line.n - skip}, now_ns, e);
}

/* Body bytes, transfer coding removed. */
static int take_body(struct reply *r, const char *p, size_t n, int64_t now_ns, struct err *e)
{
    if (!r->event_stream)
        return buf_put(&r->text, p, n);
    while (n) {
        const char *nl = memchr(p, '\n', n);
        size_t part = nl ? (size_t)(nl - p) : n;
        bool whole = nl && r->sse_line.n == 0; /* the common case: no copy */
        struct str line = {p, part};
        if (!whole) {
            if (buf_put(&r->sse_line, p, part) != ST_OK)
                return err_set(e, ST_EFORMAT, "event stream: line longer than %d bytes", REPLY_LINE_LIMIT);
            line = buf_str(&r->sse_line);
        }
        if (nl) {
            int rc = take_sse_line(r, line, now_ns, e);
            if (rc != ST_OK)
                return rc;
            buf_reset(&r->sse_line);
            part++;
        }
        p += part;
        n -= part;
    }
    return ST_OK;
}

static int finish(struct reply *r, struct err *e)
{
    r->state = REPLY_DONE;
    r->done = true;
    if (r->event_stream || r->status != 200)
        return ST_OK;
    cJSON *root;
    int rc = json_parse(&root, buf_str(&r->text), e);
    if (rc == ST_OK)
        rc = read_usage(r, root, e);
    if (rc == ST_OK)
        json_free(root);
    return rc;
}

static bool value_has(const char *value, const char *word)
{
    size_t n = strlen(word);
    for (; *value; value++)
        if (strncasecmp(value, word, n) == 0)
            return true;
    return false;
}

static int take_header(struct reply *r, char *line, struct err *e)
{
    char *colon = strchr(line, ':');
    if (!colon)
        return err_set(e, ST_EFORMAT, "reply header without a colon: %.80s", line);
    *colon = 0;
    const char *value = colon + 1;
    if (strcasecmp(line, "content-length") == 0) {
        char *end;
        errno = 0;
        r->left = strtoull(value, &end, 10);
        if (errno || end == value)
            return err_set(e, ST_EFORMAT, "reply header content-length: %.40s", value);
        r->has_length = true;
    } else if (strcasecmp(line, "transfer-encoding") == 0) {
        r->chunked = value_has(value, "chunked");
    } else if (strcasecmp(line, "content-type") == 0) {
        r->event_stream = value_has(value, "text/event-stream");
    } else if (strcasecmp(line, "connection") == 0) {
        r->closes = value_has(value, "close");
    }
    return ST_OK;
}

static int end_of_head(struct reply *r, struct err *e)
{
    if (r->status == 100) { /* an interim answer; the real one follows */
        r->state = REPLY_STATUS_LINE;
        return ST_OK;
    }
    if (r->chunked) {
        r->state = REPLY_CHUNK_SIZE;
    } else if (r->has_length) {
        r->state = REPLY_BODY_LENGTH;
        if (r->left == 0)
            return finish(r, e);
    } else {
        r->state = REPLY_BODY_TO_END;
        r->closes = true;
    }
    return ST_OK;
}

static int take_line(struct reply *r, char *line, struct err *e)
{
    switch (r->state) {
    case REPLY_STATUS_LINE:
        if (strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12)
            return err_set(e, ST_EFORMAT, "no HTTP/1.1 reply: %.80s", line);
        r->status = atoi(line + 9);
        r->state = REPLY_HEADER;
        return ST_OK;
    case REPLY_HEADER:
        return *line ? take_header(r, line, e) : end_of_head(r, e);
    case REPLY_CHUNK_SIZE: {
        char *end;
        errno = 0;
        r->left = strtoull(line, &end, 16);
        if (errno || end == line)
            return err_set(e, ST_EFORMAT, "chunk size: %.40s", line);
        r->state = r->left ? REPLY_CHUNK_DATA : REPLY_TRAILER;
        return ST_OK;
    }
    case REPLY_CHUNK_END:
        r->state = REPLY_CHUNK_SIZE;
        return *line ? err_set(e, ST_EFORMAT, "chunk longer than its size") : ST_OK;
    default: /* REPLY_TRAILER */
        return *line ? ST_OK : finish(r, e);
    }
}

/* Bytes up to the end of the line, or all of them; *used_out says how many. */
static int feed_line(struct reply *r, const char *p, size_t n, size_t *used_out, struct err *e)
{
    const char *nl = memchr(p, '\n', n);
    size_t part = nl ? (size_t)(nl - p) : n;
    *used_out = nl ? part + 1 : part;
    if (buf_put(&r->line, p, part) != ST_OK)
        return err_set(e, ST_EFORMAT, "reply line longer than %d bytes", REPLY_LINE_LIMIT);
    if (!nl)
        return ST_OK;
    if (r->line.n && r->line.p[r->line.n - 1] == '\r')
        r->line.p[--r->line.n] = 0;
    int rc = take_line(r, r->line.p ? r->line.p : (char[1]){0}, e);
    buf_reset(&r->line);
    return rc;
}

int reply_feed(struct reply *r, const char *p, size_t n, int64_t now_ns, struct err *e)
{
    if (r->line.limit == 0)
        reply_reset(r);
    while (n) {
        size_t used = n;
        int rc;
        if (r->state == REPLY_DONE)
            return err_set(e, ST_EFORMAT, "bytes behind the reply");
        if (r->state == REPLY_BODY_TO_END) {
            rc = take_body(r, p, n, now_ns, e);
        } else if (r->state == REPLY_BODY_LENGTH || r->state == REPLY_CHUNK_DATA) {
            used = n < r->left ? n : (size_t)r->left;
            rc = take_body(r, p, used, now_ns, e);
            r->left -= used;
            if (rc == ST_OK && r->left == 0) {
                if (r->state == REPLY_CHUNK_DATA)
                    r->state = REPLY_CHUNK_END;
                else
                    rc = finish(r, e);
            }
        } else {
            rc = feed_line(r, p, n, &used, e);
        }
        if (rc != ST_OK)
            return rc;
        p += used;
        n -= used;
    }
    return ST_OK;
}

int reply_eof(struct reply *r, struct err *e)
{
    if (r->state == REPLY_BODY_TO_END)
        return finish(r, e);
    return err_set(e, ST_EFORMAT, "connection closed in the middle of a reply");
}

void reply_error_text(const struct reply *r, char *out, size_t out_bytes)
{
    cJSON *root = NULL;
    struct str words = buf_str(&r->text);
    if (json_parse(&root, words, NULL) == ST_OK)
        json_opt_str(json_get(root, "error"), "message", &words, NULL);
    snprintf(out, out_bytes, "%.*s", (int)(words.n < 200 ? words.n : 200), words.p ? words.p : "");
    if (root)
        json_free(root);
}
