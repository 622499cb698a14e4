/* The only file of the engine that knows what a model is. */
#include "engine_core.h"
#include "model.h"

static int forward(void *ctx, const struct be_batch *batch, struct be_kv *kv, float *logits)
{
    return model_forward(ctx, batch, kv, logits);
}

int engine_create(struct engine **out, const struct engine_options *o, struct err *e)
{
    const struct model_info *info = model_info(o->model);
    struct engine_core c = {.forward = forward,
                            .ctx = o->model,
                            .vocab = info->vocab,
                            .fingerprint = info->fingerprint,
                            .fingerprint_bytes = sizeof info->fingerprint};
    if (o->context_length > model_max_context(o->model))
        return err_set(e, ST_EINVAL, "context-length %u: the model was loaded for %u positions",
                       o->context_length, model_max_context(o->model));
    model_kv_shape(o->model, o->block_tokens, o->n_blocks, o->kv_type, &c.kv);
    return engine_core_create(out, o, &c, e);
}
