/* A text is only known to be free of stop strings up to the longest suffix that begins one. One matcher per string keeps the
 * length of that suffix; the longest of them is what must be held back, and nothing more: a client sees each character as
 * early as it can. Searching the held text again on each piece would be shorter code and quadratic on "aaaa...". */
#include "stop.h"

#include "mem.h"

#include <assert.h>
#include <string.h>

int stop_set_init(struct stop_set *set, const struct str *strings, uint32_t n)
{
    assert(n <= STOP_MAX);
    *set = (struct stop_set){0};
    for (uint32_t i = 0; i < n; i++) {
        struct str s = strings[i];
        assert(s.n >= 1 && s.n <= STOP_BYTES_MAX);
        uint16_t *fail = mem_zalloc(s.n, sizeof *fail);
        if (!fail) {
            stop_set_fini(set);
            return ST_ENOMEM;
        }
        set->s[i] = s;
        set->fail[i] = fail;
        set->n = i + 1;
        for (size_t k = 1, len = 0; k < s.n; k++) {
            while (len && s.p[k] != s.p[len])
                len = fail[len - 1];
            len += s.p[k] == s.p[len];
            fail[k] = (uint16_t)len;
        }
    }
    return ST_OK;
}

void stop_set_fini(struct stop_set *set)
{
    for (uint32_t i = 0; i < set->n; i++)
        mem_free(set->fail[i]);
    *set = (struct stop_set){0};
}

/* Advances every matcher by one byte: the longest match under way, or the longest complete one in *hit. */
static size_t step(const struct stop_set *set, struct stop_scan *scan, char c, size_t *hit)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < set->n; i++) {
        struct str s = set->s[i];
        size_t at = scan->at[i];
        while (at && (at == s.n || s.p[at] != c))
            at = set->fail[i][at - 1];
        at += s.p[at] == c;
        scan->at[i] = (uint16_t)at;
        if (at == s.n && at > *hit)
            *hit = at;
        if (at > longest)
            longest = at;
    }
    return longest;
}

/* Moves all but the last `keep` bytes of held to out. */
static int release(struct stop_scan *scan, size_t keep, struct buf *out)
{
    size_t n = scan->held.n - keep;
    if (n == 0)
        return ST_OK;
    int st = buf_put(out, scan->held.p, n);
    memmove(scan->held.p, scan->held.p + n, keep);
    scan->held.n = keep;
    scan->held.p[keep] = 0;
    return st;
}

int stop_push(const struct stop_set *set, struct stop_scan *scan, struct str text, struct buf *out)
{
    if (scan->hit || text.n == 0)
        return ST_OK;
    if (set->n == 0)
        return buf_put(out, text.p, text.n);
    size_t keep = 0, hit = 0, used = 0;
    while (used < text.n && !hit)
        keep = step(set, scan, text.p[used++], &hit);
    int st = buf_put(&scan->held, text.p, used);
    if (!st)
        st = release(scan, hit ? hit : keep, out);
    if (hit) {
        scan->hit = true;
        buf_reset(&scan->held);
    }
    return st;
}

int stop_flush(struct stop_scan *scan, struct buf *out)
{
    return scan->hit ? ST_OK : release(scan, 0, out);
}

void stop_scan_fini(struct stop_scan *scan)
{
    buf_fini(&scan->held);
}
