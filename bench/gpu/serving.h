/* serving: Llama-3.1-8B's shapes under the engine: decode by batch size, prompts, and many requests at once.
 *
 * Owns     nothing after it returns.
 * Units    tokens per second, milliseconds.
 * States   after rig_ceilings.
 * Threads  one.
 * Errors   those of hosted.h, printed.
 * Bounds   hosted.h's; every case ends by a time limit and says so.
 */
#ifndef STATOR_SERVING_H
#define STATOR_SERVING_H

#include "rig.h"

struct serving {
    bool fp8; /* weights and KV; else both are bf16 */
    bool decode, prefill, requests;
};

int serving_bench(struct rig *r, const struct serving *what);

#endif
