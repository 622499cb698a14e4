/* hparams: the rules that hold wherever the numbers came from. */
#include "hparams.h"

#include <inttypes.h>

bool hparams_add_eos(struct hparams *h, int64_t id)
{
    for (uint32_t i = 0; i < h->n_eos; i++)
        if (h->eos[i] == id)
            return true;
    if (id < 0 || id >= HPARAMS_VOCAB_MAX || h->n_eos == HPARAMS_EOS_MAX)
        return false;
    h->eos[h->n_eos++] = (int32_t)id;
    return true;
}

int hparams_check(const struct hparams *h, const char *file, struct err *e)
{
    if (h->n_kv_heads > h->n_heads || h->n_heads % h->n_kv_heads != 0)
        return err_set(e, ST_EFORMAT, "%s: %" PRIu32 " query heads do not divide over %" PRIu32 " KV heads",
                       file, h->n_heads, h->n_kv_heads);
    if (h->head_dim == 0 || h->head_dim % 2 != 0 || h->head_dim > HPARAMS_HEAD_DIM_MAX)
        return err_set(e, ST_EFORMAT, "%s: a head size of %" PRIu32 " (even, 2 to %d)", file, h->head_dim,
                       HPARAMS_HEAD_DIM_MAX);
    if (h->rot_dim == 0 || h->rot_dim % 2 != 0 || h->rot_dim > h->head_dim)
        return err_set(e, ST_EFORMAT, "%s: %" PRIu32 " rotated dims in heads of %" PRIu32, file, h->rot_dim,
                       h->head_dim);
    if (h->scaling == HPARAMS_SCALING_LLAMA3 && !(h->rope_high > h->rope_low))
        return err_set(e, ST_EFORMAT, "%s: rope scaling: high_freq_factor %g is not above low_freq_factor %g",
                       file, h->rope_high, h->rope_low);
    return ST_OK;
}
