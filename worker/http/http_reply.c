/* Frames are appended at one end and read from the other; what was read is dropped in large steps, so that a stream which is
 * read as fast as it is written never moves a byte. */
#include "http_reply.h"

#include "clock.h"

#include <string.h>

enum { READ_KEPT_BYTES = 65536 };

void http_reply_begin(struct http_reply *r, const struct api_head *head, const struct tok *tok)
{
    r->head = *head;
    r->tok = tok;
    r->last_ns = clock_now_ns();
}

void http_reply_fini(struct http_reply *r)
{
    buf_fini(&r->out);
}

void http_reply_whole(struct http_reply *r, const struct http_seq *seqs, uint32_t n, bool logprobs,
                      const struct api_usage *usage)
{
    api_put_reply_begin(&r->out, &r->head);
    for (uint32_t i = 0; i < n; i++) {
        struct api_logprobs logs;
        struct api_choice c = http_seq_choice(&seqs[i], i, r->tok, logprobs ? &logs : NULL);
        api_put_reply_choice(&r->out, &r->head, &c, i > 0);
    }
    api_put_reply_end(&r->out, usage);
}

bool http_reply_frame(struct http_reply *r, struct http_seq *s, uint32_t index)
{
    if (!http_seq_frame(s, index, r->tok, &r->head, &r->out))
        return false;
    r->last_ns = clock_now_ns();
    return true;
}

void http_reply_keep_alive(struct http_reply *r, int64_t now_ns)
{
    buf_puts(&r->out, ": keep-alive\n\n");
    r->last_ns = now_ns;
}

void http_reply_end(struct http_reply *r, int status, const char *text, const struct api_usage *usage)
{
    if (status)
        api_put_error_frame(&r->out, status, text);
    else if (usage)
        api_put_usage_frame(&r->out, &r->head, usage);
    api_put_done_frame(&r->out);
    r->ended = true;
}

size_t http_reply_unread(const struct http_reply *r)
{
    return r->out.n - r->read;
}

long http_reply_read(struct http_reply *r, char *out, size_t max)
{
    size_t n = http_reply_unread(r);
    if (n == 0)
        return r->ended ? -1 : 0;
    if (n > max)
        n = max;
    memcpy(out, r->out.p + r->read, n);
    r->read += n;
    if (r->read == r->out.n || r->read > READ_KEPT_BYTES) {
        r->out.n -= r->read;
        memmove(r->out.p, r->out.p + r->read, r->out.n);
        r->read = 0;
    }
    return (long)n;
}
