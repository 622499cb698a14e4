/* gpu.h over the emulation of simt.cc: a GPU that is as late, and as little orderly, as its contract allows.
 *
 * A stream is a queue of operations, an operation what was asked for with its parameters copied. Nothing runs when it is asked
 * for. It runs when the host waits or polls, and sometimes at other calls: then one of the streams that may go on (its head
 * does not wait for an event) is drawn and does one operation. So a copy reads its source late: a staging buffer that was
 * filled again too early shows, and so does a result that is read before its event. A graph is a list of such operations.
 *
 * Broken rules end the program (simt_report): a copy that leaves the live allocations on either side, a kernel that writes
 * over the edge of one, memory freed twice. What CUDA answers with an error makes the gpu sticky instead: a launch that asks
 * for too much, a call that a capture forbids. One lock holds all of it. */
#include "gpu_sim.h"

#include <algorithm>

static int enter_stream(gpu_stream *s, const char *what)
{
    if (!s->g->failed && s->capture)
        gpu_sim_fail(s->g, what, "operation not permitted when stream is capturing");
    return gpu_sim_enter(s->g, what);
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

static bool may_run(const gpu_stream *s)
{
    return !s->queue.empty() && (s->queue.front().kind != op::WAIT || s->queue.front().event->done >= s->queue.front().ticket);
}

static bool check_places(const op &o)
{
    for (auto &p : o.places)
        if (!gpu_sim_owns(p.first, o.bytes) || (o.kind == op::COPY && !gpu_sim_owns(p.second, o.bytes))) {
            simt_report("%s of %zu bytes to %p from %p leaves what was allocated", o.kind == op::COPY ? "gpu_copy" : "gpu_zero",
                        o.bytes, p.first, p.second);
            return false;
        }
    return true;
}

static void run_op(gpu *g, op &o)
{
    switch (o.kind) {
    case op::COPY:
    case op::ZERO:
        if (!check_places(o)) {
            gpu_sim_fail(g, "gpu_copy", "illegal address");
            return;
        }
        for (size_t n = o.places.size(); n; n--) { /* in any order */
            std::swap(o.places[n - 1], o.places[simt_random() % n]);
            if (o.kind == op::COPY)
                memmove(o.places[n - 1].first, o.places[n - 1].second, o.bytes);
            else
                memset(o.places[n - 1].first, 0, o.bytes);
        }
        g->us += 2 + (double)(o.bytes * o.places.size()) / 50e3;
        break;
    case op::LAUNCH:
        o.launch.params = o.params.data();
        if (!simt_run(&o.launch)) {
            gpu_sim_fail(g, o.launch.name, "the emulation gave up");
            return;
        }
        gpu_sim_check_edges(o.launch.name);
        g->us += 5;
        break;
    case op::RECORD:
        o.event->done = std::max(o.event->done, o.ticket);
        o.event->us = g->us;
        break;
    case op::WAIT:
        break;
    }
}

/* One operation of one stream that may go on; false: there is none. */
static bool step(gpu *g)
{
    gpu_stream *pick = nullptr;
    uint32_t n = 0;
    for (gpu_stream *s : g->streams)
        if (may_run(s) && simt_random() % ++n == 0)
            pick = s;
    if (!pick)
        return false;
    op o = std::move(pick->queue.front());
    pick->queue.pop_front();
    run_op(g, o);
    return true;
}

static void run_some(gpu *g)
{
    for (uint64_t n = simt_random() >> 20 & 7; n > 4 && step(g); n--)
        ;
}

static int ask(gpu_stream *s, op &&o)
{
    if (s->capture) {
        s->capture->ops.push_back(std::move(o));
    } else {
        s->queue.push_back(std::move(o));
        run_some(s->g);
    }
    return s->g->failed ? ST_EDEVICE : ST_OK;
}

/* It ends: an event that a stream waits for was recorded before the wait was asked for. */
static int run_until(gpu *g, bool (*over)(const void *), const void *arg)
{
    while (!g->failed && !over(arg) && step(g))
        ;
    return g->failed ? ST_EDEVICE : ST_OK;
}

/* ---- streams ---------------------------------------------------------------------------------------------------------- */

static bool stream_is_empty(const void *s)
{
    return ((const gpu_stream *)s)->queue.empty();
}

int gpu_stream_create(struct gpu *g, struct gpu_stream **out)
{
    guard hold(gpu_sim_lock);
    *out = NULL;
    if (gpu_sim_enter(g, "gpu_stream_create"))
        return ST_EDEVICE;
    *out = new gpu_stream;
    (*out)->g = g;
    g->streams.push_back(*out);
    gpu_sim_things++;
    return ST_OK;
}

void gpu_stream_destroy(struct gpu_stream *s)
{
    guard hold(gpu_sim_lock);
    if (!s)
        return;
    run_until(s->g, stream_is_empty, s);
    s->g->streams.erase(std::find(s->g->streams.begin(), s->g->streams.end(), s));
    delete s->capture;
    delete s;
    gpu_sim_things--;
}

struct gpu *gpu_stream_gpu(const struct gpu_stream *s)
{
    return s->g;
}

void *gpu_stream_raw(const struct gpu_stream *s)
{
    return (void *)s;
}

int gpu_stream_sync(struct gpu_stream *s)
{
    guard hold(gpu_sim_lock);
    if (enter_stream(s, "gpu_stream_sync"))
        return ST_EDEVICE;
    return run_until(s->g, stream_is_empty, s);
}

int gpu_copy_batch(struct gpu_stream *s, void *const *dst, const void *const *src, size_t bytes, uint32_t n)
{
    guard hold(gpu_sim_lock);
    if (gpu_sim_enter(s->g, "gpu_copy"))
        return ST_EDEVICE;
    op o;
    o.kind = op::COPY;
    o.bytes = bytes;
    for (uint32_t i = 0; i < n && bytes; i++)
        o.places.push_back({dst[i], src[i]});
    if (!check_places(o))
        return gpu_sim_fail(s->g, "gpu_copy", "invalid argument");
    return o.places.empty() ? ST_OK : ask(s, std::move(o));
}

int gpu_copy(struct gpu_stream *s, void *dst, const void *src, size_t bytes)
{
    return gpu_copy_batch(s, &dst, &src, bytes, 1);
}

int gpu_zero(struct gpu_stream *s, void *dst, size_t bytes)
{
    guard hold(gpu_sim_lock);
    if (gpu_sim_enter(s->g, "gpu_zero"))
        return ST_EDEVICE;
    op o;
    o.kind = op::ZERO;
    o.bytes = bytes;
    if (bytes)
        o.places.push_back({dst, NULL});
    if (!check_places(o))
        return gpu_sim_fail(s->g, "gpu_zero", "invalid argument");
    return o.places.empty() ? ST_OK : ask(s, std::move(o));
}

int gpu_sim_launch(struct gpu_stream *s, const struct simt_launch *l)
{
    guard hold(gpu_sim_lock);
    if (gpu_sim_enter(s->g, l->name))
        return ST_EDEVICE;
    if (!l->grid.x || !l->grid.y || !l->grid.z || l->grid.x > 0x7fffffffu || l->grid.y > 65535 || l->grid.z > 65535 ||
        !l->threads || l->threads > SIMT_THREADS_MAX)
        return gpu_sim_fail(s->g, l->name, "invalid configuration argument");
    if (l->smem > s->g->info.smem_block)
        return gpu_sim_fail(s->g, l->name, "too much shared memory requested for launch");
    op o;
    o.kind = op::LAUNCH;
    o.launch = *l;
    o.params.resize((l->params_bytes + 7) / 8);
    memcpy(o.params.data(), l->params, l->params_bytes);
    return ask(s, std::move(o));
}

/* ---- events ----------------------------------------------------------------------------------------------------------- */

static bool is_done(const void *event)
{
    const moment *m = ((const gpu_event *)event)->state.get();
    return m->done >= m->asked;
}

int gpu_event_create(struct gpu *g, bool timed, struct gpu_event **out)
{
    guard hold(gpu_sim_lock);
    *out = NULL;
    if (gpu_sim_enter(g, "gpu_event_create"))
        return ST_EDEVICE;
    *out = new gpu_event{g, timed, std::make_shared<moment>()};
    g->n_events++;
    gpu_sim_things++;
    return ST_OK;
}

void gpu_event_destroy(struct gpu_event *v)
{
    guard hold(gpu_sim_lock);
    if (!v)
        return;
    v->g->n_events--;
    gpu_sim_things--;
    delete v;
}

static int ask_event(gpu_stream *s, gpu_event *v, bool record)
{
    op o;
    o.kind = record ? op::RECORD : op::WAIT;
    o.event = v->state;
    o.ticket = record ? ++v->state->asked : v->state->asked;
    return ask(s, std::move(o));
}

int gpu_event_record(struct gpu_event *v, struct gpu_stream *s)
{
    guard hold(gpu_sim_lock);
    return enter_stream(s, "gpu_event_record") ? ST_EDEVICE : ask_event(s, v, true);
}

int gpu_stream_wait(struct gpu_stream *s, struct gpu_event *v)
{
    guard hold(gpu_sim_lock);
    return enter_stream(s, "gpu_stream_wait") ? ST_EDEVICE : ask_event(s, v, false);
}

int gpu_event_poll(struct gpu_event *v)
{
    guard hold(gpu_sim_lock);
    if (gpu_sim_enter(v->g, "gpu_event_poll"))
        return ST_EDEVICE;
    if (!is_done(v))
        for (uint64_t n = simt_random() >> 20 & 3; n && step(v->g); n--)
            ;
    return v->g->failed ? (int)ST_EDEVICE : (int)is_done(v);
}

int gpu_event_wait(struct gpu_event *v)
{
    guard hold(gpu_sim_lock);
    if (gpu_sim_enter(v->g, "gpu_event_wait"))
        return ST_EDEVICE;
    return run_until(v->g, is_done, v);
}

int gpu_event_us(struct gpu_event *from, struct gpu_event *to, double *us)
{
    guard hold(gpu_sim_lock);
    if (gpu_sim_enter(from->g, "gpu_event_us"))
        return ST_EDEVICE;
    if (!from->timed || !to->timed || !from->state->asked || !to->state->asked || !is_done(from) || !is_done(to))
        return gpu_sim_fail(from->g, "gpu_event_us", "invalid resource handle, or not ready");
    *us = to->state->us - from->state->us;
    return ST_OK;
}

/* ---- graphs ----------------------------------------------------------------------------------------------------------- */

int gpu_capture_begin(struct gpu_stream *s)
{
    guard hold(gpu_sim_lock);
    if (enter_stream(s, "gpu_capture_begin"))
        return ST_EDEVICE;
    s->capture = new gpu_graph{s->g, {}};
    return ST_OK;
}

int gpu_capture_end(struct gpu_stream *s, struct gpu_graph **out)
{
    guard hold(gpu_sim_lock);
    *out = NULL;
    gpu_graph *h = s->capture;
    s->capture = nullptr;
    if (!h)
        gpu_sim_fail(s->g, "gpu_capture_end", "stream is not capturing");
    if (gpu_sim_enter(s->g, "gpu_capture_end")) {
        delete h;
        return ST_EDEVICE;
    }
    s->g->n_graphs++;
    gpu_sim_things++;
    *out = h;
    return ST_OK;
}

int gpu_graph_launch(struct gpu_graph *h, struct gpu_stream *s)
{
    guard hold(gpu_sim_lock);
    if (enter_stream(s, "gpu_graph_launch"))
        return ST_EDEVICE;
    for (const op &o : h->ops)
        s->queue.push_back(o);
    run_some(s->g);
    return s->g->failed ? ST_EDEVICE : ST_OK;
}

uint32_t gpu_graph_nodes(const struct gpu_graph *h)
{
    return (uint32_t)h->ops.size();
}

void gpu_graph_destroy(struct gpu_graph *h)
{
    guard hold(gpu_sim_lock);
    if (!h)
        return;
    h->g->n_graphs--;
    gpu_sim_things--;
    delete h;
}
