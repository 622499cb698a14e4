/* Any bytes as the body of either endpoint: no crash, no leak, and what is accepted is within the limits. */
#include "api_parse.h"
#include "mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const struct api_context ctx = {.vocab_size = 1000,
                                    .knows = {.developer = data[0] & 0x40, .tool_calls = data[0] & 0x80},
                                    .defaults = {.n = 1, .temperature = 1, .top_p = 1}};
    uint64_t live = mem_live();
    struct api_request r;
    struct err e;
    if (data[0] & 2)
        mem_fail_after(1 + (data[0] >> 2));
    int st = api_parse(&r, data[0] & 1 ? API_CHAT : API_COMPLETIONS,
                       (struct str){(const char *)data + 1, size - 1}, &ctx, &e);
    mem_fail_after(0);
    if (st == ST_OK) {
        if (r.n_stop > API_STOP_MAX || r.n_bias > API_BIAS_MAX || r.sampling.n < 1 ||
            r.sampling.n * (r.n_prompts ? r.n_prompts : 1) > API_CHOICES_MAX)
            abort();
        if (r.endpoint == API_CHAT ? !r.messages : r.n_prompts == 0)
            abort();
    }
    api_request_fini(&r);
    if (mem_live() != live)
        abort();
    return 0;
}
