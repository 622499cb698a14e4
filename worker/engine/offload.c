/* Two queues, one each way, because the links of a device are two: a load that a request waits for does not stand behind
 * background saves. In each queue moves go in order, some at a time as one copy: the next copy begins when the one before it is
 * done, so that a few large ones are under way and never a thousand small ones.
 *
 * Urgent saves go past the queue: the step that is about to be launched overwrites what they read. The wait is short (a few
 * blocks) and rare (saves are made ahead of need), and simpler than teaching the device's queues to wait for each other. */
#include "offload.h"

#include "mem.h"

#include <assert.h>
#include <sched.h>

struct queue {
    struct sched_move *moves; /* [cap] a ring */
    uint32_t first, n;        /* not done, oldest first */
    uint32_t begun;           /* of which the first so many are one copy under way */
    uint64_t ticket;
};

struct offload {
    struct be *be;
    struct be_kv *kv;
    char *slab; /* [n_host][block_bytes] */
    size_t block_bytes;
    uint32_t cap, batch;
    struct queue saves, loads;
    struct be_block_copy list[OFFLOAD_BATCH];
};

int offload_create(struct offload **out, struct be *be, struct be_kv *kv, const struct be_kv_shape *shape,
                   uint32_t n_host, uint32_t max_moves, struct err *e)
{
    size_t bytes;
    if (!be->ops->kv_store)
        return err_set(e, ST_EUNSUP, "--host-kv-bytes: the %s backend cannot copy blocks", be->ops->name);
    struct offload *o = mem_zalloc(1, sizeof *o);
    if (!o)
        return err_set(e, ST_ENOMEM, "host tier: no memory");
    o->be = be;
    o->kv = kv;
    o->cap = max_moves;
    o->block_bytes = be->ops->kv_block_bytes(be, shape);
    o->saves.moves = mem_zalloc(max_moves, sizeof *o->saves.moves);
    o->loads.moves = mem_zalloc(max_moves, sizeof *o->loads.moves);
    if (mem_mul(o->block_bytes, n_host, &bytes))
        o->slab = be->ops->host_alloc(be, bytes);
    if (!o->saves.moves || !o->loads.moves || !o->slab) {
        offload_destroy(o);
        return err_set(e, ST_ENOMEM, "host tier: no memory for %u blocks of %zu bytes; lower --host-kv-bytes",
                       n_host, o->block_bytes);
    }
    size_t batch = OFFLOAD_BYTES / (o->block_bytes ? o->block_bytes : 1);
    o->batch = batch < 1 ? 1 : batch > OFFLOAD_BATCH ? OFFLOAD_BATCH : (uint32_t)batch;
    *out = o;
    return ST_OK;
}

void offload_destroy(struct offload *o)
{
    if (!o)
        return;
    assert(o->saves.n == 0 && o->loads.n == 0);
    if (o->slab)
        o->be->ops->host_free(o->be, o->slab);
    mem_free(o->saves.moves);
    mem_free(o->loads.moves);
    mem_free(o);
}

static struct be_block_copy copy_of(const struct offload *o, const struct sched_move *m)
{
    return (struct be_block_copy){m->block, o->slab + (size_t)m->host * o->block_bytes};
}

/* Negative: it could not be begun. */
static int begin_copy(struct offload *o, bool save, uint32_t n, uint64_t *ticket)
{
    return save ? o->be->ops->kv_store(o->be, o->kv, o->list, n, ticket)
                : o->be->ops->kv_load(o->be, o->kv, o->list, n, ticket);
}

static int wait_copy(struct offload *o, uint64_t ticket)
{
    int rc;
    while ((rc = o->be->ops->copy_poll(o->be, ticket)) == 0)
        sched_yield();
    return rc;
}

static void finish(struct offload *o, struct queue *q, struct sched *s, uint32_t n, bool ok, int64_t now_ns)
{
    for (uint32_t i = 0; i < n; i++) {
        struct sched_move m = q->moves[q->first];
        q->first = (q->first + 1) % o->cap;
        q->n--;
        sched_move_done(s, &m, ok, now_ns);
    }
    q->begun = 0;
}

static void poll_queue(struct offload *o, struct queue *q, struct sched *s, int64_t now_ns)
{
    while (q->n > 0) {
        if (q->begun > 0) {
            int rc = o->be->ops->copy_poll(o->be, q->ticket);
            if (rc == 0)
                return;
            finish(o, q, s, q->begun, rc > 0, now_ns);
            continue;
        }
        uint32_t n = q->n < o->batch ? q->n : o->batch;
        for (uint32_t i = 0; i < n; i++)
            o->list[i] = copy_of(o, &q->moves[(q->first + i) % o->cap]);
        if (begin_copy(o, q == &o->saves, n, &q->ticket) < 0)
            finish(o, q, s, n, false, now_ns);
        else
            q->begun = n;
    }
}

void offload_poll(struct offload *o, struct sched *s, int64_t now_ns)
{
    poll_queue(o, &o->saves, s, now_ns);
    poll_queue(o, &o->loads, s, now_ns);
}

/* Also after one has failed every move is told, as failed. */
static int save_now(struct offload *o, struct sched *s, const struct sched_plan *plan, int64_t now_ns,
                    struct err *e)
{
    int rc = 1;
    for (uint32_t i = 0; i < plan->n_moves;) {
        uint32_t n = 0, from = i;
        uint64_t ticket;
        for (; i < plan->n_moves && n < o->batch; i++)
            if (plan->moves[i].urgent)
                o->list[n++] = copy_of(o, &plan->moves[i]);
        if (n > 0 && rc > 0 && (rc = begin_copy(o, true, n, &ticket)) >= 0)
            rc = wait_copy(o, ticket);
        for (; from < i; from++)
            if (plan->moves[from].urgent)
                sched_move_done(s, &plan->moves[from], rc > 0, now_ns);
    }
    return rc > 0 ? ST_OK
                  : err_set(e, rc, "KV blocks could not be copied to the host tier: %s", status_text(rc));
}

int offload_put(struct offload *o, struct sched *s, const struct sched_plan *plan, int64_t now_ns,
                struct err *e)
{
    int rc = save_now(o, s, plan, now_ns, e);
    for (uint32_t i = 0; i < plan->n_moves; i++) {
        const struct sched_move *m = &plan->moves[i];
        struct queue *q = m->kind == SCHED_LOAD ? &o->loads : &o->saves;
        if (m->urgent)
            continue;
        assert(q->n < o->cap); /* each pins a block of its own */
        q->moves[(q->first + q->n++) % o->cap] = *m;
    }
    return rc;
}

void offload_abandon(struct offload *o, struct sched *s, int64_t now_ns)
{
    struct queue *const both[] = {&o->saves, &o->loads};
    for (int i = 0; i < 2; i++) {
        if (both[i]->begun > 0)
            wait_copy(o, both[i]->ticket);
        finish(o, both[i], s, both[i]->n, false, now_ns);
    }
}
