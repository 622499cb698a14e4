/* A router's question about missed events: any bytes are answered with one whole value. */
#include <stdlib.h>

#include "dyn_msgpack.h"
#include "dyn_recovery.h"
#include "kv_pool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct dyn_events *d;
    struct buf reply = {0};
    if (!d) {
        if (dyn_events_create(&d, 7, 16, NULL) != ST_OK)
            abort();
        for (uint32_t i = 0; i < 16; i++) {
            const struct kv_event ev = {
                .type = KV_STORED, .first = i == 0, .node = i, .parent = i ? i - 1 : KV_NONE, .name = i};
            dyn_events_take(d, &ev);
            if (i % 4 == 0)
                dyn_events_range(d);
        }
    }
    dyn_recovery_answer(d, data, n, &reply);
    struct dyn_msgpack m = dyn_msgpack_of(reply.p, reply.n);
    if (reply.failed || dyn_msgpack_skip(&m) != ST_OK || !dyn_msgpack_end(&m))
        abort();
    buf_fini(&reply);
    return 0;
}
