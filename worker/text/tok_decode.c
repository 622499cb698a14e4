/* What each id stands for is worked out once at load (tok_finish): after that a token is a byte string, and
 * decoding is concatenation plus UTF-8 repair. The repair is the same small machine for the whole decode and
 * for the stream: a sequence that cannot go on becomes one U+FFFD, as the WHATWG decoder and Rust's lossy
 * conversion do. Only one thing cannot be said while streaming: the ByteFallback decoder turns every byte of
 * a run of <0xXX> tokens into U+FFFD when the run as a whole is not valid, so whole decode looks at runs,
 * and the stream at characters. */
#include "tok_core.h"

#include "mem.h"

#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD"

/* The 188 printable bytes stand for themselves, the other 68 for U+0100 and up in order. */
#define ROW(b)                                                                                        \
    b, b + 1, b + 2, b + 3, b + 4, b + 5, b + 6, b + 7, b + 8, b + 9, b + 10, b + 11, b + 12, b + 13, \
        b + 14, b + 15
const uint16_t tok_alphabet[256] = {
    ROW(0x100), ROW(0x110), 0x120,      0x21,       0x22,      0x23,      0x24,      0x25, 0x26,
    0x27,       0x28,       0x29,       0x2A,       0x2B,      0x2C,      0x2D,      0x2E, 0x2F,
    ROW(0x30),  ROW(0x40),  ROW(0x50),  ROW(0x60),  0x70,      0x71,      0x72,      0x73, 0x74,
    0x75,       0x76,       0x77,       0x78,       0x79,      0x7A,      0x7B,      0x7C, 0x7D,
    0x7E,       0x121,      ROW(0x122), ROW(0x132), 0x142,     0xA1,      0xA2,      0xA3, 0xA4,
    0xA5,       0xA6,       0xA7,       0xA8,       0xA9,      0xAA,      0xAB,      0xAC, 0x143,
    0xAE,       0xAF,       ROW(0xB0),  ROW(0xC0),  ROW(0xD0), ROW(0xE0), ROW(0xF0),
};

bool tok_unspell(struct str s, char *out, size_t *n_out)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        int len = utf8_decode(s.p + i, s.n - i, &cp);
        if (len <= 0)
            return false;
        i += (size_t)len;
        if (cp < 256 && tok_alphabet[cp] == cp)
            out[n++] = (char)cp;
        else if (cp >= 0x100 && cp <= 0x120)
            out[n++] = (char)(cp - 0x100);
        else if (cp >= 0x121 && cp <= 0x142)
            out[n++] = (char)(cp - 0x121 + 0x7F);
        else if (cp == 0x143)
            out[n++] = (char)0xAD;
        else
            return false;
    }
    *n_out = n;
    return true;
}

int tok_byte_name(struct str s)
{
    int v = 0;
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = s.p[i];
        if (c >= '0' && c <= '9')
            v = v * 16 + (c - '0');
        else if (c >= 'A' && c <= 'F')
            v = v * 16 + (c - 'A' + 10);
        else
            return -1;
    }
    return v;
}

struct str tok_bytes(const struct tok *t, tok_t id, bool show_special)
{
    if (id < 0 || (uint32_t)id >= t->n || (!show_special && (t->flags[id] & TOK_IS_SPECIAL)))
        return (struct str){"", 0};
    return tok_names_get(&t->words, (uint32_t)id);
}

void tok_stream_init(struct tok_stream *s, bool show_special)
{
    *s = (struct tok_stream){.show_special = show_special};
}

enum { SEQ_BAD = -1, SEQ_OPEN = 0, SEQ_DONE = 1 };

/* Is p[0..n) a character, a beginning of one, or neither? 1 <= n <= 4 */
static int sequence(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char lo = 0x80, hi = 0xBF;
    size_t need = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (need == 0)
        return SEQ_BAD;
    if (p[0] == 0xE0)
        lo = 0xA0;
    else if (p[0] == 0xED)
        hi = 0x9F;
    else if (p[0] == 0xF0)
        lo = 0x90;
    else if (p[0] == 0xF4)
        hi = 0x8F;
    for (size_t i = 1; i < n; i++) {
        if (p[i] < lo || p[i] > hi)
            return SEQ_BAD;
        lo = 0x80;
        hi = 0xBF;
    }
    return n == need ? SEQ_DONE : SEQ_OPEN;
}

static void put_bytes(struct tok_stream *s, struct str w, struct buf *out)
{
    for (size_t i = 0; i < w.n;) {
        if (s->n_held == 0) {
            size_t from = i;
            uint32_t cp;
            int n;
            while (i < w.n && (n = (unsigned char)w.p[i] < 128 ? 1 : utf8_decode(w.p + i, w.n - i, &cp)) > 0)
                i += (size_t)n;
            buf_put(out, w.p + from, i - from);
            if (i == w.n)
                return;
        }
        s->held[s->n_held++] = w.p[i];
        int seq = sequence(s->held, s->n_held);
        if (seq == SEQ_OPEN) {
            i++;
            continue;
        }
        if (seq == SEQ_DONE) {
            buf_put(out, s->held, s->n_held);
            i++;
        } else {
            buf_puts(out, REPLACEMENT);
            i += s->n_held == 1; /* otherwise this byte may begin something itself */
        }
        s->n_held = 0;
    }
}

int tok_stream_flush(struct tok_stream *s, struct buf *out)
{
    if (s->n_held)
        buf_puts(out, REPLACEMENT);
    s->n_held = 0;
    return out->failed;
}

int tok_stream_push(struct tok_stream *s, const struct tok *t, tok_t id, struct buf *out)
{
    struct str w = tok_bytes(t, id, s->show_special);
    if (w.n == 0)
        return out->failed;
    if (!s->started) {
        s->started = true;
        for (size_t i = 0; i < t->strip_start && w.n && w.p[0] == ' '; i++)
            w = (struct str){w.p + 1, w.n - 1};
    } else if (t->join_decode) {
        buf_putc(out, ' ');
    }
    if (!t->byte_level && !(t->flags[id] & TOK_IS_BYTE))
        tok_stream_flush(s, out); /* a whole token cannot finish a character begun in bytes */
    put_bytes(s, w, out);
    return out->failed;
}

/* A run of byte tokens, as the ByteFallback decoder takes it: all or nothing. */
static size_t byte_run(const struct tok *t, const tok_t *ids, size_t n, bool show_special, struct buf *run)
{
    size_t i = 0;
    buf_reset(run);
    for (; i < n && ids[i] >= 0 && (uint32_t)ids[i] < t->n; i++) {
        if (!show_special && (t->flags[ids[i]] & TOK_IS_SPECIAL))
            continue;
        if (!(t->flags[ids[i]] & TOK_IS_BYTE))
            break;
        struct str w = tok_names_get(&t->words, (uint32_t)ids[i]);
        buf_put(run, w.p, w.n);
    }
    return i;
}

int tok_decode(const struct tok *t, const tok_t *ids, size_t n, bool show_special, struct buf *out)
{
    struct tok_stream s;
    struct buf run = {0};
    tok_stream_init(&s, show_special);
    for (size_t i = 0; i < n && !out->failed && !run.failed;) {
        size_t k = t->byte_level ? 0 : byte_run(t, ids + i, n - i, show_special, &run);
        if (run.n && !utf8_valid(buf_str(&run))) {
            for (size_t j = 0; j < run.n; j++)
                buf_puts(out, REPLACEMENT);
            s.started = true;
            i += k;
            continue;
        }
        for (size_t end = i + (k ? k : 1); i < end; i++)
            tok_stream_push(&s, t, ids[i], out);
    }
    tok_stream_flush(&s, out);
    int st = out->failed ? out->failed : run.failed;
    buf_fini(&run);
    return st;
}
