/* The file is advisory and lies where others may write: it is read as hostile. Every content has one spelling, the printer's, so
 * the head is compared with what the printer writes, and the rest is rows of numbers without sign, leading zero or blank. */
#include "cu_lt_cache.h"

#include <inttypes.h>
#include <string.h>

#define FORMAT "stator cublaslt 1\n"

static void put_id(struct buf *b, const struct cu_lt_id *id)
{
    buf_printf(b, "gpu %s\nsms %" PRIu32 "\ndriver %" PRIu32 "\n", id->gpu, id->sms, id->driver);
    buf_printf(b, "library %" PRIu64 "\n", id->library);
}

static void put_choice(struct buf *b, const struct cu_lt_choice *c)
{
    for (int i = 0; i < CU_LT_FIELDS; i++)
        buf_printf(b, "%" PRIu32 " ", c->key[i]);
    buf_printf(b, "%" PRIu32 " %" PRIu32 "\n", c->rank, c->ns);
}

int cu_lt_cache_print(struct buf *b, const struct cu_lt_id *id, const struct cu_lt_choice *c, uint32_t n)
{
    buf_puts(b, FORMAT);
    put_id(b, id);
    buf_printf(b, "choices %" PRIu32 "\n", n);
    for (uint32_t i = 0; i < n; i++)
        put_choice(b, &c[i]);
    return b->failed;
}

/* Takes one decimal number and the byte behind it off the text. */
static bool take_number(struct str *t, char end, uint32_t *out)
{
    uint64_t v = 0;
    size_t i = 0;
    while (i < t->n && t->p[i] >= '0' && t->p[i] <= '9' && i < 10)
        v = v * 10 + (uint64_t)(t->p[i++] - '0');
    if (i == 0 || i == t->n || t->p[i] != end || v > UINT32_MAX || (i > 1 && t->p[0] == '0'))
        return false;
    t->p += i + 1;
    t->n -= i + 1;
    *out = (uint32_t)v;
    return true;
}

static bool take_choice(struct str *t, struct cu_lt_choice *c)
{
    for (int i = 0; i < CU_LT_FIELDS; i++)
        if (!take_number(t, ' ', &c->key[i]))
            return false;
    return take_number(t, ' ', &c->rank) && take_number(t, '\n', &c->ns) && c->rank < CU_LT_CANDIDATES;
}

/* Skips `want` at the text's begin. */
static bool take_text(struct str *t, const char *want)
{
    size_t n = strlen(want);
    if (t->n < n || memcmp(t->p, want, n) != 0)
        return false;
    t->p += n;
    t->n -= n;
    return true;
}

/* ST_OK, ST_EUNSUP or ST_ENOMEM */
static int take_id(struct str *t, const struct cu_lt_id *id)
{
    struct buf want = {0};
    put_id(&want, id);
    int rc = want.failed;
    if (rc == ST_OK && !take_text(t, want.p))
        rc = ST_EUNSUP;
    buf_fini(&want);
    return rc;
}

int cu_lt_cache_parse(struct str text, const struct cu_lt_id *id, struct cu_lt_choice *out, uint32_t *n)
{
    uint32_t count;
    *n = 0;
    if (text.n > CU_LT_TEXT_MAX || !take_text(&text, FORMAT))
        return ST_EFORMAT;
    int rc = take_id(&text, id);
    if (rc != ST_OK)
        return rc;
    if (!take_text(&text, "choices ") || !take_number(&text, '\n', &count) || count > CU_LT_CHOICES)
        return ST_EFORMAT;
    for (uint32_t i = 0; i < count; i++)
        if (!take_choice(&text, &out[i]))
            return ST_EFORMAT;
    if (text.n != 0)
        return ST_EFORMAT;
    *n = count;
    return ST_OK;
}
