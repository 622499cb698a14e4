/* config.json and generation_config.json, split at the first newline: whatever is accepted keeps the
 * promised bounds. */
#include "hparams.h"
#include "rope.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str config = {(const char *)data, size}, generation = {"", 0};
    const void *nl = size > 0 ? memchr(data, '\n', size) : NULL;
    struct hparams h;
    double freq[HPARAMS_HEAD_DIM_MAX / 2];
    float table[HPARAMS_HEAD_DIM_MAX];
    if (nl != NULL) {
        config.n = (size_t)((const uint8_t *)nl - data);
        generation = (struct str){(const char *)nl + 1, size - config.n - 1};
    }
    if (hparams_hf(&h, config, generation, NULL) != ST_OK)
        return 0;
    assert(h.n_layers >= 1 && h.n_layers <= HPARAMS_LAYERS_MAX && h.vocab <= HPARAMS_VOCAB_MAX);
    assert(h.n_kv_heads >= 1 && h.n_heads % h.n_kv_heads == 0 && h.n_heads <= HPARAMS_HEADS_MAX);
    assert(h.rot_dim >= 2 && h.rot_dim <= h.head_dim && h.head_dim <= HPARAMS_HEAD_DIM_MAX);
    assert(h.n_eos <= HPARAMS_EOS_MAX && memchr(h.name, 0, sizeof h.name) != NULL);
    rope_frequencies(&h, NULL, freq);
    rope_table(freq, h.rot_dim / 2, 1, table);
    return 0;
}
