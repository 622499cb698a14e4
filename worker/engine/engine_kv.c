/* The events come out of the cache as they are; what is added is the wake-up in the other direction. An engine that fell behind
 * goes on telling when it turns, and an idle one does not turn: so who has emptied the ring and knows that there is more wakes
 * it. */
#include "engine_kv.h"

#include "engine_state.h"

uint32_t engine_kv_nodes(const struct engine *g)
{
    return g->kv_events ? kv_events_nodes(g->kv_events) : 0;
}

bool engine_kv_pop(struct engine *g, struct kv_event *out)
{
    if (!g->kv_events)
        return false;
    if (kv_events_pop(g->kv_events, out))
        return true;
    if (kv_events_behind(g->kv_events))
        ring_kick(g->inbox);
    return false;
}

int engine_kv_fd(const struct engine *g)
{
    return g->kv_events ? kv_events_fd(g->kv_events) : -1;
}

bool engine_kv_sleep(struct engine *g)
{
    return !g->kv_events || kv_events_sleep(g->kv_events);
}

void engine_kv_drain_fd(struct engine *g)
{
    if (g->kv_events)
        kv_events_drain_fd(g->kv_events);
}
