/* Blocks between the KV pool and host memory, by the copy engines, beside the steps.
 *
 * A block is one contiguous piece of 64 KB to some megabytes, so there is nothing to gather: one call copies a batch. A store
 * begins when the last step launched has run, which wrote what is to be stored; so does a load, since a step under way may
 * still read or write what the block held before. Later steps wait for loads on the device: the host waits for nothing.
 *
 * Tickets are numbers that rise; ticket t has event t % CU_TICKETS. An event is used again once it has come, so a ticket
 * whose event belongs to a later one is done. */
#include "cu_be.h"

enum { PIECE = 64 };

static int check(const struct cu_be *b, const struct be_kv *kv, const struct be_block_copy *list, uint32_t n)
{
    if (gpu_failure(b->gpu))
        return ST_EDEVICE;
    if (n == 0)
        return ST_EINVAL;
    for (uint32_t i = 0; i < n; i++)
        if (list[i].block >= kv->kv.n_blocks || !list[i].host)
            return ST_EINVAL;
    return ST_OK;
}

/* The last step launched, for `s` to wait for. */
static int after_steps(struct cu_be *b, struct gpu_stream *s)
{
    /* Each end_step moves on by one slot, so the last one launched is the one before the next. One that was never used has
     * recorded nothing and holds nobody up. */
    return gpu_stream_wait(s, b->slot[(b->first + b->in_flight + CU_BLOBS - 1) % CU_BLOBS].done);
}

static int copy(struct cu_be *b, struct gpu_stream *s, const struct be_kv *kv,
                const struct be_block_copy *list, uint32_t n, bool store)
{
    int st = after_steps(b, s);
    for (uint32_t i = 0; i < n && st == ST_OK; i += PIECE) {
        void *dst[PIECE];
        const void *src[PIECE];
        uint32_t m = n - i < PIECE ? n - i : PIECE;
        for (uint32_t j = 0; j < m; j++) {
            uint8_t *block = kv->kv.pool + list[i + j].block * kv->kv.block_stride;
            dst[j] = store ? list[i + j].host : block;
            src[j] = store ? block : list[i + j].host;
        }
        st = gpu_copy_batch(s, dst, src, kv->kv.block_stride, m);
    }
    return st;
}

static int submit(struct cu_be *b, struct be_kv *kv, const struct be_block_copy *list, uint32_t n, bool store,
                  uint64_t *ticket)
{
    struct gpu_stream *s = store ? b->store : b->load;
    struct gpu_event *done = b->copies.done[b->copies.issued % CU_TICKETS];
    int st = check(b, kv, list, n);
    if (st)
        return st;
    int free = gpu_event_poll(done);
    if (free <= 0)
        return free < 0 ? free : ST_AGAIN;
    if (store) /* what a load brings may be stored before a step has seen it */
        st = gpu_stream_wait(s, b->copies.loaded);
    if (st == ST_OK)
        st = copy(b, s, kv, list, n, store);
    if (st == ST_OK)
        st = gpu_event_record(done, s);
    if (st == ST_OK && !store)
        st = gpu_event_record(b->copies.loaded, s);
    if (st)
        return st;
    if (!store)
        b->copies.unseen = true;
    *ticket = b->copies.issued++;
    return ST_OK;
}

int cu_copy_store(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                  uint64_t *ticket)
{
    return submit((struct cu_be *)be, kv, list, n, true, ticket);
}

int cu_copy_load(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                 uint64_t *ticket)
{
    return submit((struct cu_be *)be, kv, list, n, false, ticket);
}

int cu_copy_poll(struct be *be, uint64_t ticket)
{
    struct cu_be *b = (struct cu_be *)be;
    if (gpu_failure(b->gpu))
        return ST_EDEVICE;
    if (ticket >= b->copies.issued)
        return ST_EINVAL;
    if (b->copies.issued - ticket > CU_TICKETS)
        return 1;
    return gpu_event_poll(b->copies.done[ticket % CU_TICKETS]);
}
