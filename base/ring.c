/* Each slot carries a sequence number: `pos` = free for the producer at pos, `pos + 1` = filled for the consumer at pos,
 * `pos + capacity` = free again. Producers claim a position with one compare-exchange; the consumer owns `tail` alone.
 *
 * Wake-up: the consumer announces sleep in `asleep`, then looks once more; a producer publishes its slot, then looks at
 * `asleep`. All four accesses are sequentially consistent (a fence would do, but the thread sanitizer knows none), so at
 * least one side sees the other: no lost wake-up, and at most one eventfd write per sleep. */
#define _GNU_SOURCE
#include "ring.h"

#include "mem.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct ring {
    _Alignas(64) _Atomic uint64_t head;
    _Alignas(64) uint64_t tail;
    _Alignas(64) _Atomic uint32_t asleep;
    uint64_t mask;
    size_t stride, message_bytes;
    char *slots; /* [mask + 1][stride]: _Atomic uint64_t sequence, then the message */
    int fd;
};

static char *slot_at(const struct ring *r, uint64_t pos)
{
    return r->slots + (pos & r->mask) * r->stride;
}

int ring_create(struct ring **out, uint32_t capacity, size_t message_bytes)
{
    uint64_t n = 2;
    while (n < capacity)
        n *= 2;
    struct ring *r = mem_zalloc(1, sizeof *r);
    if (!r)
        return ST_ENOMEM;
    r->mask = n - 1;
    r->message_bytes = message_bytes;
    r->stride = (8 + message_bytes + 7) & ~(size_t)7;
    r->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r->slots = mem_zalloc(n, r->stride);
    if (r->fd < 0 || !r->slots) {
        ring_destroy(r);
        return ST_ENOMEM;
    }
    for (uint64_t i = 0; i < n; i++)
        atomic_init((_Atomic uint64_t *)slot_at(r, i), i);
    *out = r;
    return ST_OK;
}

void ring_destroy(struct ring *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    mem_free(r->slots);
    mem_free(r);
}

void ring_kick(struct ring *r)
{
    uint64_t one = 1;
    ssize_t n = write(r->fd, &one, sizeof one);
    (void)n; /* EAGAIN: the counter is full, so the fd is readable already */
}

void ring_wake(struct ring *r)
{
    if (atomic_load(&r->asleep) && atomic_exchange(&r->asleep, 0))
        ring_kick(r);
}

int ring_push(struct ring *r, const void *message)
{
    int st = ring_push_quiet(r, message);
    if (!st)
        ring_wake(r);
    return st;
}

int ring_push_quiet(struct ring *r, const void *message)
{
    uint64_t pos = atomic_load_explicit(&r->head, memory_order_relaxed);
    char *slot;
    for (;;) {
        slot = slot_at(r, pos);
        uint64_t seq = atomic_load_explicit((_Atomic uint64_t *)slot, memory_order_acquire);
        if (seq == pos) {
            if (atomic_compare_exchange_weak_explicit(&r->head, &pos, pos + 1, memory_order_relaxed,
                                                      memory_order_relaxed))
                break;
        } else if (seq < pos) {
            return ST_AGAIN;
        } else {
            pos = atomic_load_explicit(&r->head, memory_order_relaxed);
        }
    }
    memcpy(slot + 8, message, r->message_bytes);
    atomic_store((_Atomic uint64_t *)slot, pos + 1);
    return ST_OK;
}

bool ring_pop(struct ring *r, void *message_out)
{
    char *slot = slot_at(r, r->tail);
    if (atomic_load_explicit((_Atomic uint64_t *)slot, memory_order_acquire) != r->tail + 1)
        return false;
    memcpy(message_out, slot + 8, r->message_bytes);
    atomic_store_explicit((_Atomic uint64_t *)slot, r->tail + r->mask + 1, memory_order_release);
    r->tail++;
    return true;
}

int ring_fd(const struct ring *r)
{
    return r->fd;
}

bool ring_sleep(struct ring *r)
{
    atomic_store(&r->asleep, 1);
    char *slot = slot_at(r, r->tail);
    if (atomic_load((_Atomic uint64_t *)slot) != r->tail + 1)
        return true;
    atomic_store(&r->asleep, 0);
    return false;
}

void ring_drain_fd(struct ring *r)
{
    uint64_t n;
    ssize_t got = read(r->fd, &n, sizeof n);
    (void)got;
    atomic_store(&r->asleep, 0);
}
