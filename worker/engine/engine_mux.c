/* The engine's events name slots; whoever submitted knows what a slot stands for. The table between the two is kept once, here,
 * so that the endpoint and the request plane share the engine without knowing each other. An event of a generation that is
 * not the open one finds nobody. The slot is released before its owner hears of the END: an owner may submit again at once. */
#include "engine_mux.h"

#include "mem.h"

#include <assert.h>

struct place {
    struct engine_owner owner;
    uint32_t gen;
    bool open;
};

struct engine_mux {
    struct engine *engine;
    struct place *places; /* [n] */
    uint32_t n;
};

int engine_mux_create(struct engine_mux **out, struct engine *g)
{
    struct engine_mux *m = mem_zalloc(1, sizeof *m);
    if (!m)
        return ST_ENOMEM;
    m->engine = g;
    m->n = engine_slots(g);
    m->places = mem_zalloc(m->n ? m->n : 1, sizeof *m->places);
    if (!m->places) {
        mem_free(m);
        return ST_ENOMEM;
    }
    *out = m;
    return ST_OK;
}

void engine_mux_destroy(struct engine_mux *m)
{
    if (!m)
        return;
    mem_free(m->places);
    mem_free(m);
}

struct engine *engine_mux_engine(const struct engine_mux *m)
{
    return m->engine;
}

int engine_mux_submit(struct engine_mux *m, const struct engine_request *r, const struct engine_owner *owner,
                      uint32_t *slot_out, uint32_t *gen_out, struct err *e)
{
    int st = engine_submit(m->engine, r, slot_out, gen_out, e);
    if (st)
        return st;
    assert(*slot_out < m->n && !m->places[*slot_out].open);
    m->places[*slot_out] = (struct place){.owner = *owner, .gen = *gen_out, .open = true};
    return ST_OK;
}

void engine_mux_own(struct engine_mux *m, uint32_t slot, uint32_t gen, const struct engine_owner *owner)
{
    assert(slot < m->n && m->places[slot].open && m->places[slot].gen == gen);
    (void)gen;
    m->places[slot].owner = *owner;
}

static void hand_out(struct engine_mux *m, const struct engine_event *ev)
{
    struct place *p = ev->slot < m->n ? &m->places[ev->slot] : NULL;
    if (!p || !p->open || p->gen != ev->gen)
        return; /* of an earlier request in this slot */
    const struct engine_owner owner = p->owner;
    if (ev->type == ENGINE_END) {
        *p = (struct place){0};
        engine_release(m->engine, ev->slot, ev->gen);
    }
    if (owner.event)
        owner.event(owner.ctx, owner.tag, ev);
}

bool engine_mux_poll(struct engine_mux *m)
{
    struct engine_event ev;
    for (int i = 0; i < ENGINE_MUX_BATCH; i++) {
        if (!engine_pop_event(m->engine, &ev))
            return false;
        hand_out(m, &ev);
    }
    return true;
}
