/* A hash per element would take seconds for a large model; copies of a table take what memory takes. */
#include "dummy.h"

#include "mem.h"

#include <math.h>
#include <string.h>

enum { TABLE = 1 << 16 };

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The sum of four uniform numbers, nearly normal, of deviation 1 / sqrt(k). */
static void make_table(struct dummy *d, uint64_t k)
{
    double scale = sqrt(3.0 / (double)k);
    for (uint64_t i = 0; i < TABLE; i++) {
        double t = 0;
        for (uint64_t j = 0; j < 4; j++)
            t += (double)(mix(4 * i + j + 1) >> 11) * 0x1p-53 - 0.5;
        float f = (float)(t * scale);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        d->table[i] = (uint16_t)(u >> 16);
    }
    d->k = k;
}

int dummy_reserve(struct dummy *d, uint64_t n)
{
    size_t bytes;
    if (d->table == NULL)
        d->table = mem_alloc(TABLE * sizeof *d->table);
    if (d->table == NULL || !mem_mul(n, sizeof *d->data, &bytes))
        return ST_ENOMEM;
    if (bytes <= d->data_bytes)
        return ST_OK;
    if (d->data != NULL)
        mem_unmap(d->data, d->data_bytes);
    d->data = mem_map(bytes);
    d->data_bytes = d->data != NULL ? bytes : 0;
    return d->data != NULL ? ST_OK : ST_ENOMEM;
}

void dummy_fill(struct dummy *d, uint64_t at, uint64_t rows, uint64_t k, const char *name)
{
    uint64_t seed = 0;
    for (const char *c = name; *c != 0; c++)
        seed = mix(seed + (unsigned char)*c);
    if (d->k != k)
        make_table(d, k);
    for (uint64_t r = 0; r < rows; r++) {
        uint16_t *row = d->data + at + r * k;
        uint64_t from = mix(seed + r) % TABLE;
        for (uint64_t i = 0; i < k;) {
            uint64_t n = TABLE - from < k - i ? TABLE - from : k - i;
            memcpy(row + i, d->table + from, n * sizeof *row);
            i += n;
            from = 0;
        }
    }
}

void dummy_fini(struct dummy *d)
{
    mem_free(d->table);
    if (d->data != NULL)
        mem_unmap(d->data, d->data_bytes);
    *d = (struct dummy){0};
}
