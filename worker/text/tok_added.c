/* The tokens lie sorted by their bytes. At a place in the text the candidates are a range of that array,
 * narrowed one byte at a time by binary search; the last token that the walk passed completely is the
 * longest. Sixty-four thousand reserved tokens with one prefix cost sixteen steps per byte, and a byte that
 * starts no token costs one load. */
#include "tok_added.h"

#include "mem.h"
#include "status.h"

#include <stdlib.h>
#include <string.h>

static int by_bytes(const void *pa, const void *pb)
{
    const struct tok_added_one *a = pa, *b = pb;
    size_t n = a->text.n < b->text.n ? a->text.n : b->text.n;
    int c = memcmp(a->text.p, b->text.p, n);
    if (c)
        return c;
    if (a->text.n != b->text.n)
        return a->text.n < b->text.n ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

int tok_added_add(struct tok_added *a, struct tok_added_one one)
{
    if (one.text.n == 0)
        return ST_OK;
    if (a->n == TOK_ADDED_MAX)
        return ST_ETOOBIG;
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 64;
        struct tok_added_one *grown = mem_realloc(a->one, cap * sizeof *grown);
        if (!grown)
            return ST_ENOMEM;
        a->one = grown;
        a->cap = cap;
    }
    one.text.p = mem_dup(one.text.p, one.text.n);
    if (!one.text.p)
        return ST_ENOMEM;
    a->one[a->n++] = one;
    return ST_OK;
}

void tok_added_seal(struct tok_added *a)
{
    if (a->n)
        qsort(a->one, a->n, sizeof *a->one, by_bytes);
    for (size_t i = 0; i < a->n; i++) {
        uint32_t *r = a->first[(unsigned char)a->one[i].text.p[0]];
        if (r[1] == 0)
            r[0] = (uint32_t)i;
        r[1] = (uint32_t)i + 1;
    }
}

void tok_added_fini(struct tok_added *a)
{
    for (size_t i = 0; i < a->n; i++)
        mem_free((char *)a->one[i].text.p);
    mem_free(a->one);
    mem_free(a->word);
    memset(a, 0, sizeof *a);
}

/* First index in [lo, hi) whose byte at `depth` is at least `c`; all of them are longer than `depth` or end there. */
static size_t lower(const struct tok_added *a, size_t lo, size_t hi, size_t depth, int c)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct str *s = &a->one[mid].text;
        int m = s->n > depth ? (unsigned char)s->p[depth] : -1;
        if (m < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static const struct tok_added_one *longest_at(const struct tok_added *a, struct str t, size_t at,
                                              bool special)
{
    const uint32_t *r = a->first[(unsigned char)t.p[at]];
    size_t lo = r[0], hi = r[1];
    const struct tok_added_one *best = NULL;
    for (size_t depth = 1; lo < hi; depth++) {
        if (a->one[lo].text.n == depth) { /* shortest first among equals so far */
            if (special || !a->one[lo].special)
                best = &a->one[lo];
            while (lo < hi && a->one[lo].text.n == depth)
                lo++;
        }
        if (at + depth >= t.n)
            break;
        int c = (unsigned char)t.p[at + depth];
        lo = lower(a, lo, hi, depth, c);
        hi = lower(a, lo, hi, depth, c + 1);
    }
    return best;
}

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

static bool is_word(const struct tok_added *a, uint32_t c)
{
    size_t lo = 0, hi = a->n_word;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c > a->word[mid][1])
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < a->n_word && c >= a->word[lo][0];
}

/* The character that ends at `at`; returns its length, 0 when there is none or it is not valid. */
static size_t before(struct str t, size_t at, uint32_t *cp)
{
    for (size_t n = 1; n <= 4 && n <= at; n++)
        if (((unsigned char)t.p[at - n] & 0xC0) != 0x80)
            return utf8_decode(t.p + at - n, n, cp) == (int)n ? n : 0;
    return 0;
}

bool tok_added_find(const struct tok_added *a, struct str t, size_t from, bool special,
                    struct tok_added_hit *out)
{
    if (a->n == 0)
        return false;
    for (size_t i = from; i < t.n; i++) {
        const struct tok_added_one *k =
            a->first[(unsigned char)t.p[i]][1] ? longest_at(a, t, i, special) : NULL;
        if (!k)
            continue;
        size_t start = i, end = i + k->text.n, n;
        uint32_t cp = 0;
        if (k->single_word) {
            bool joined = before(t, start, &cp) && is_word(a, cp);
            if (!joined)
                joined = utf8_decode(t.p + end, t.n - end, &cp) > 0 && is_word(a, cp);
            if (joined) { /* not a word of its own; tokens inside it are not tried, as in the source */
                i = end - 1;
                continue;
            }
        }
        while (k->lstrip && start > from && (n = before(t, start, &cp)) && n <= start - from && is_space(cp))
            start -= n;
        int m;
        while (k->rstrip && (m = utf8_decode(t.p + end, t.n - end, &cp)) > 0 && is_space(cp))
            end += (size_t)m;
        *out = (struct tok_added_hit){start, end, k->id};
        return true;
    }
    return false;
}
