/* The GGUF reader on arbitrary bytes: whatever parses, all that it offers lies inside the input. */
#include "gguf.h"
#include "hparams.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_strings(struct gguf_array a, uint64_t *sum)
{
    struct str s;
    while (gguf_array_str(&a, &s))
        if (s.n > 0)
            *sum += (unsigned char)s.p[0] + (unsigned char)s.p[s.n - 1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"a", "b", "tokenizer.ggml.tokens", "tokenizer.ggml.scores"};
    struct gguf *g;
    struct hparams h;
    volatile uint64_t sink;
    uint64_t sum = 0;
    if (gguf_parse(&g, data, size, "fuzz.gguf", NULL) != ST_OK)
        return 0;
    for (uint32_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct tensor *t = gguf_tensor_at(g, i);
        if (t->data != NULL && t->bytes > 0)
            sum += (uint64_t)t->data[0] + t->data[t->bytes - 1];
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct gguf_array a = {0};
        if (gguf_opt_array(g, keys[i], GGUF_ARRAY, &a, NULL) != ST_OK || a.n == 0)
            continue;
        if (a.type == GGUF_STRING)
            walk_strings(a, &sum);
        else
            sum += gguf_array_num(&a, a.n - 1) > 0;
    }
    sum += hparams_gguf(&h, g, NULL) == ST_OK;
    gguf_close(g);
    sink = sum;
    (void)sink;
    return 0;
}
