/* Python strings are sequences of code points; ours are UTF-8. Positions are therefore counted on demand,
 * with an ASCII fast path, because chat templates slice short strings and measure long ones rarely. Case
 * mapping covers the scripts that have case and are in common use, by ranges instead of a full Unicode table.
 * */
#define _GNU_SOURCE
#include "chat_text.h"

#include "buf.h"

#include <string.h>

int chat_text_next(const char *p, size_t n, uint32_t *cp_out)
{
    if (!((unsigned char)*p & 0x80)) {
        *cp_out = (unsigned char)*p;
        return 1;
    }
    int len = utf8_decode(p, n, cp_out);
    if (len > 0)
        return len;
    *cp_out = (unsigned char)*p;
    return 1;
}

bool chat_text_ascii(const char *p, size_t n)
{
    uint64_t seen = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t w;
        memcpy(&w, p + i, 8);
        seen |= w;
    }
    for (; i < n; i++)
        seen |= (unsigned char)p[i] & 0x80u;
    return !(seen & 0x8080808080808080u);
}

size_t chat_text_chars(const char *p, size_t n)
{
    if (chat_text_ascii(p, n))
        return n;
    size_t chars = 0;
    uint32_t cp;
    for (size_t i = 0; i < n; i += (size_t)chat_text_next(p + i, n - i, &cp))
        chars++;
    return chars;
}

size_t chat_text_offset(const char *p, size_t n, size_t chars)
{
    size_t i = 0;
    uint32_t cp;
    for (; i < n && chars; chars--)
        i += (size_t)chat_text_next(p + i, n - i, &cp);
    return i;
}

bool chat_text_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x20) || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f ||
           cp == 0x3000;
}

bool chat_text_line_end(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

bool chat_text_printable(uint32_t cp)
{
    if (cp < 0x20 || (cp >= 0x7f && cp <= 0xa0) || cp == 0xad)
        return false;
    if (cp < 0x600)
        return true;
    return !(cp <= 0x605 || cp == 0x61c || cp == 0x6dd || cp == 0x70f || cp == 0x1680 || cp == 0x180e ||
             (cp >= 0x2000 && cp <= 0x200f) || (cp >= 0x2028 && cp <= 0x202f) ||
             (cp >= 0x205f && cp <= 0x206f) || cp == 0x3000 || (cp >= 0xd800 && cp <= 0xf8ff) ||
             cp == 0xfeff || (cp >= 0xfff0 && cp <= 0xfffb) || (cp & 0xfffe) == 0xfffe ||
             (cp >= 0xe0000 && cp <= 0xe00ff) || cp >= 0xe01f0);
}

/* Ranges whose members are upper case at `first`, `first + step`..., lower case at + delta. */
static const struct case_range {
    uint32_t first, last;
    int32_t delta;
    uint32_t step;
} case_ranges[] = {
    {'A', 'Z', 32, 1},       {0xc0, 0xd6, 32, 1},       {0xd8, 0xde, 32, 1},       {0x100, 0x12e, 1, 2},
    {0x132, 0x136, 1, 2},    {0x139, 0x147, 1, 2},      {0x14a, 0x176, 1, 2},      {0x178, 0x178, -121, 1},
    {0x179, 0x17d, 1, 2},    {0x1cd, 0x1db, 1, 2},      {0x1de, 0x1ee, 1, 2},      {0x1f8, 0x21e, 1, 2},
    {0x222, 0x232, 1, 2},    {0x386, 0x386, 38, 1},     {0x388, 0x38a, 37, 1},     {0x38c, 0x38c, 64, 1},
    {0x38e, 0x38f, 63, 1},   {0x391, 0x3a1, 32, 1},     {0x3a3, 0x3ab, 32, 1},     {0x400, 0x40f, 80, 1},
    {0x410, 0x42f, 32, 1},   {0x460, 0x480, 1, 2},      {0x48a, 0x4be, 1, 2},      {0x4c1, 0x4cd, 1, 2},
    {0x4d0, 0x52e, 1, 2},    {0x531, 0x556, 48, 1},     {0x10a0, 0x10c5, 7264, 1}, {0x1e00, 0x1e94, 1, 2},
    {0x1ea0, 0x1efe, 1, 2},  {0x2160, 0x216f, 16, 1},   {0x24b6, 0x24cf, 26, 1},   {0x2c00, 0x2c2f, 48, 1},
    {0xff21, 0xff3a, 32, 1}, {0x10400, 0x10427, 40, 1},
};

uint32_t chat_text_lower(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    for (size_t i = 0; i < sizeof case_ranges / sizeof *case_ranges; i++) {
        const struct case_range *c = &case_ranges[i];
        if (cp >= c->first && cp <= c->last && (cp - c->first) % c->step == 0)
            return cp + (uint32_t)c->delta;
    }
    return cp;
}

uint32_t chat_text_upper(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= 'a' && cp <= 'z' ? cp - 32 : cp;
    if (cp == 0xb5)
        return 0x39c;
    if (cp == 0x3c2)
        return 0x3a3;
    if (cp >= 0x10d0 && cp <= 0x10fa)
        return cp + 0xbc0;
    for (size_t i = 0; i < sizeof case_ranges / sizeof *case_ranges; i++) {
        const struct case_range *c = &case_ranges[i];
        uint32_t up = cp - (uint32_t)c->delta;
        if (c->first != 0x10a0 && up >= c->first && up <= c->last && (up - c->first) % c->step == 0)
            return up;
    }
    return cp;
}

/* Letters: everything from the letter blocks; symbols, punctuation and emoji blocks are left out. */
bool chat_text_alpha(uint32_t cp)
{
    if (cp < 0x80)
        return (cp | 32) >= 'a' && (cp | 32) <= 'z';
    if (cp < 0x370)
        return cp == 0xaa || cp == 0xb5 || cp == 0xba ||
               (cp >= 0xc0 && cp != 0xd7 && cp != 0xf7 && cp < 0x2c2);
    if ((cp >= 0x660 && cp <= 0x669) || (cp >= 0x6f0 && cp <= 0x6f9) || (cp >= 0x966 && cp <= 0x96f))
        return false;
    return cp < 0x2000 || (cp >= 0x2c00 && cp < 0x2de0) || (cp >= 0x3041 && cp < 0x3097) ||
           (cp >= 0x30a1 && cp < 0x30fb) || (cp >= 0x3105 && cp < 0x3130) || (cp >= 0x3400 && cp < 0x4dc0) ||
           (cp >= 0x4e00 && cp < 0xa48d) || (cp >= 0xac00 && cp < 0xd7a4) || (cp >= 0xf900 && cp < 0xfb00) ||
           (cp >= 0xff21 && cp < 0xff3b) || (cp >= 0xff41 && cp < 0xff5b) || (cp >= 0xff66 && cp < 0xffdd) ||
           (cp >= 0x10400 && cp < 0x10450) || (cp >= 0x20000 && cp < 0x31350);
}

bool chat_text_digit(uint32_t cp)
{
    return (cp >= '0' && cp <= '9') || cp == 0xb2 || cp == 0xb3 || cp == 0xb9 ||
           (cp >= 0x660 && cp <= 0x669) || (cp >= 0x6f0 && cp <= 0x6f9) || (cp >= 0x966 && cp <= 0x96f) ||
           cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079) || (cp >= 0x2080 && cp <= 0x2089) ||
           (cp >= 0xff10 && cp <= 0xff19);
}

size_t chat_text_lstrip(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t cp;
        int len = chat_text_next(p + i, n - i, &cp);
        if (!chat_text_space(cp))
            break;
        i += (size_t)len;
    }
    return i;
}

size_t chat_text_rstrip(const char *p, size_t n)
{
    while (n) {
        size_t at = n - 1;
        while (at > 0 && n - at < 4 && ((unsigned char)p[at] & 0xc0) == 0x80)
            at--;
        uint32_t cp;
        if (chat_text_next(p + at, n - at, &cp) != (int)(n - at) || !chat_text_space(cp))
            break;
        n = at;
    }
    return n;
}

int64_t chat_text_find(const char *p, size_t n, const char *needle, size_t m)
{
    if (m == 0)
        return 0;
    if (m > n)
        return -1;
    const char *at = memmem(p, n, needle, m);
    return at ? at - p : -1;
}

int64_t chat_text_rfind(const char *p, size_t n, const char *needle, size_t m)
{
    if (m > n)
        return -1;
    for (size_t i = n - m + 1; i-- > 0;)
        if (m == 0 || memcmp(p + i, needle, m) == 0)
            return (int64_t)i;
    return -1;
}
