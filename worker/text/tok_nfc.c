/* Nearly every text is in form C already, and a scan for suspicious code points proves it without a copy.
 * Otherwise: decompose everything, put runs of combining characters into the order of their classes (stable
 * merge sort, so that a million accents stay cheap), then compose in place with one "last starter" pointer,
 * as the annex describes. Hangul is arithmetic, not table. */
#include "tok_nfc.h"

#include "mem.h"
#include "status.h"
#include "tok_nfc_table.h"

#include <stdint.h>
#include <string.h>

enum { S0 = 0xAC00, L0 = 0x1100, V0 = 0x1161, T0 = 0x11A7, L_N = 19, V_N = 21, T_N = 28 };

struct mark {
    uint32_t cp;
    uint32_t cls;
};

/* Row of a {from, to, ...} table of `width` columns that holds cp, or NULL. */
static const uint32_t *find_range(const uint32_t *t, size_t rows, size_t width, uint32_t cp)
{
    size_t lo = 0, hi = rows;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp < t[mid * width])
            hi = mid;
        else if (cp > t[mid * width + 1])
            lo = mid + 1;
        else
            return t + mid * width;
    }
    return NULL;
}

static uint32_t class_of(uint32_t cp)
{
    if (cp < 0x300)
        return 0;
    const uint32_t *r = find_range(&tok_nfc_class[0][0], tok_nfc_class_n, 3, cp);
    return r ? r[2] : 0;
}

bool tok_nfc_quick(struct str s)
{
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0xCC) { /* below U+0300 */
            i += c < 0x80 ? 1 : 2;
            continue;
        }
        uint32_t cp = 0;
        int n = utf8_decode(s.p + i, s.n - i, &cp);
        if (n <= 0 || find_range(&tok_nfc_suspect[0][0], tok_nfc_suspect_n, 2, cp))
            return false;
        i += (size_t)n;
    }
    return true;
}

static size_t decompose(uint32_t cp, struct mark *out)
{
    if (cp >= S0 && cp < S0 + L_N * V_N * T_N) {
        uint32_t s = cp - S0, t = s % T_N;
        out[0] = (struct mark){L0 + s / (V_N * T_N), 0};
        out[1] = (struct mark){V0 + s % (V_N * T_N) / T_N, 0};
        out[2] = (struct mark){T0 + t, 0};
        return t ? 3 : 2;
    }
    size_t lo = 0, hi = cp < 0xC0 ? 0 : tok_nfc_decomp_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (tok_nfc_decomp[mid][0] < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == tok_nfc_decomp_n || tok_nfc_decomp[lo][0] != cp) {
        out[0] = (struct mark){cp, class_of(cp)};
        return 1;
    }
    size_t n = decompose(tok_nfc_decomp[lo][1], out); /* the second part never decomposes further */
    if (tok_nfc_decomp[lo][2])
        out[n++] = (struct mark){tok_nfc_decomp[lo][2], class_of(tok_nfc_decomp[lo][2])};
    return n;
}

static uint32_t compose(uint32_t a, uint32_t b)
{
    if (a >= L0 && a < L0 + L_N && b >= V0 && b < V0 + V_N)
        return S0 + ((a - L0) * V_N + (b - V0)) * T_N;
    if (a >= S0 && a < S0 + L_N * V_N * T_N && (a - S0) % T_N == 0 && b > T0 && b < T0 + T_N)
        return a + (b - T0);
    size_t lo = 0, hi = tok_nfc_pair_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const uint32_t *r = tok_nfc_pair[mid];
        if (r[0] == a && r[1] == b)
            return r[2];
        if (r[0] < a || (r[0] == a && r[1] < b))
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

/* Stable, bottom up; a run is short in every honest text. */
static void sort_run(struct mark *m, size_t n, struct mark *spare)
{
    for (size_t w = 1; w < n; w *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * w) {
            size_t mid = lo + w < n ? lo + w : n, hi = lo + 2 * w < n ? lo + 2 * w : n;
            size_t a = lo, b = mid, k = lo;
            while (a < mid || b < hi)
                spare[k++] = a < mid && (b >= hi || m[a].cls <= m[b].cls) ? m[a++] : m[b++];
        }
        memcpy(m, spare, n * sizeof *m);
    }
}

static void reorder(struct mark *m, size_t n, struct mark *spare)
{
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        if (m[i].cls) {
            while (end < n && m[end].cls)
                end++;
            sort_run(m + i, end - i, spare);
        }
        i = end;
    }
}

static size_t compose_all(struct mark *m, size_t n)
{
    size_t kept = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        /* blocked: something between the starter and this one has the same or a higher class */
        bool near = starter != SIZE_MAX && (kept == starter + 1 || m[kept - 1].cls < m[i].cls);
        if (near && kept > starter + 1 && m[i].cls == 0)
            near = false;
        uint32_t c = near ? compose(m[starter].cp, m[i].cp) : 0;
        if (c) {
            m[starter].cp = c;
            continue;
        }
        if (m[i].cls == 0)
            starter = kept;
        m[kept++] = m[i];
    }
    return kept;
}

void tok_nfc_put(struct str s, struct buf *out)
{
    enum { GROWTH = 4 }; /* no code point decomposes into more than four */
    struct mark *m = mem_zalloc(s.n + 1, 2 * GROWTH * sizeof *m);
    if (!m) {
        if (!out->failed)
            out->failed = ST_ENOMEM;
        return;
    }
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp = 0xFFFD;
        int len = utf8_decode(s.p + i, s.n - i, &cp);
        i += len > 0 ? (size_t)len : 1;
        n += decompose(cp, m + n);
    }
    reorder(m, n, m + n);
    n = compose_all(m, n);
    for (size_t i = 0; i < n; i++) {
        char c[4];
        buf_put(out, c, (size_t)utf8_encode(m[i].cp, c));
    }
    mem_free(m);
}
