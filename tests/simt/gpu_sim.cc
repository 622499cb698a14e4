/* gpu.h over the emulation of simt.cc: a GPU that is as late, and as little orderly, as its contract allows.
 *
 * A stream is a queue of operations, an operation what was asked for with its parameters copied. Nothing runs when it is asked
 * for. It runs when the host waits or polls, and sometimes at other calls: then one of the streams that may go on (its head
 * does not wait for an event) is drawn and does one operation. So a copy reads its source late: a staging buffer that was
 * filled again too early shows, and so does a result that is read before its event. A graph is a list of such operations.
 *
 * Broken rules end the program (simt_report): a copy that leaves the live allocations on either side, a kernel that writes
 * over the edge of one, memory freed twice. What CUDA answers with an error makes the gpu sticky
 * instead: a launch that asks for too much, a call that a capture forbids. One lock holds all of it. */
#include "simt.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdlib.h>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(p, n) (void)(p)
#define __asan_unpoison_memory_region(p, n) (void)(p)
#endif

enum { ALIGN = 256, EDGE = 256 };
static const unsigned char EDGE_BYTE = 0xff; /* a NaN for who reads over the edge */

struct moment { /* what an event knows; operations in flight keep it alive */
    uint64_t asked = 0, done = 0;
    double us = 0;
};

struct op {
    enum { COPY, ZERO, LAUNCH, RECORD, WAIT } kind;
    std::vector<std::pair<void *, const void *>> places; /* COPY, ZERO */
    size_t bytes = 0;
    simt_launch launch = {};
    std::vector<uint64_t> params;
    std::shared_ptr<moment> event;
    uint64_t ticket = 0; /* of the event */
};

struct gpu {
    struct gpu_info info = {};
    uint64_t limit, used = 0;
    bool failed = false;
    std::string failure;
    double us = 0;
    std::vector<gpu_stream *> streams;
    uint32_t n_events = 0, n_graphs = 0;
};

struct gpu_graph {
    gpu *g;
    std::vector<op> ops;
};

struct gpu_stream {
    gpu *g;
    std::deque<op> queue;
    gpu_graph *capture = nullptr;
};

struct gpu_event {
    gpu *g;
    bool timed;
    std::shared_ptr<moment> state;
};

struct allocation {
    gpu *g;
    void *raw;
    size_t bytes;
    bool host;
};

static std::mutex lock;
static std::map<uintptr_t, allocation> allocations; /* by address */
static uint32_t n_gpus, n_things;                   /* things: streams, events, graphs */
static int device_cc = 90;
static uint64_t device_bytes = 8ull << 30;
static uint32_t fail_in;

typedef std::lock_guard<std::mutex> guard;

/* ---- failures --------------------------------------------------------------------------------------------------------- */

static int fail(gpu *g, const char *what, const char *why)
{
    if (!g->failed) {
        g->failed = true;
        g->failure = std::string(what) + ": " + why;
        for (gpu_stream *s : g->streams)
            s->queue.clear();
    }
    return ST_EDEVICE;
}

static bool injected(void)
{
    return fail_in && --fail_in == 0;
}

/* Every call that can fail begins with this. */
static int enter(gpu *g, const char *what)
{
    if (!g->failed && injected())
        fail(g, what, "injected failure");
    return g->failed ? ST_EDEVICE : ST_OK;
}

static int enter_stream(gpu_stream *s, const char *what)
{
    if (!s->g->failed && s->capture)
        fail(s->g, what, "operation not permitted when stream is capturing");
    return enter(s->g, what);
}

int gpu_fail(struct gpu *g, const char *what, const char *why)
{
    guard hold(lock);
    return fail(g, what, why);
}

const char *gpu_failure(const struct gpu *g)
{
    guard hold(lock);
    return g->failed ? g->failure.c_str() : NULL;
}

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

bool gpu_sim_owns(const void *p, size_t bytes)
{
    static uintptr_t from, to; /* the one of last time, mostly the one of this time */
    static size_t n;
    uintptr_t at = (uintptr_t)p;
    if (n != allocations.size() || at < from || at >= to) {
        auto it = allocations.upper_bound(at);
        if (it == allocations.begin())
            return false;
        --it;
        from = it->first, to = from + it->second.bytes, n = allocations.size();
    }
    return at >= from && at < to && bytes <= to - at;
}

static void *allocate(gpu *g, size_t bytes, bool host)
{
    guard hold(lock);
    if (g->failed || injected() || bytes == 0 || (!host && bytes > g->limit - g->used))
        return NULL;
    unsigned char *raw = (unsigned char *)calloc(1, bytes + 2 * EDGE + ALIGN);
    if (!raw)
        return NULL;
    unsigned char *p = (unsigned char *)(((uintptr_t)raw + EDGE + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
    memset(p - EDGE, EDGE_BYTE, EDGE);
    memset(p + bytes, EDGE_BYTE, EDGE);
    if (host)
        memset(p, 0xff, bytes);
    __asan_poison_memory_region(p - EDGE, EDGE);
    __asan_poison_memory_region(p + bytes, EDGE);
    allocations[(uintptr_t)p] = allocation{g, raw, bytes, host};
    simt_race_forget(p, bytes);
    g->used += host ? 0 : bytes;
    return p;
}

static bool edges_hold(const unsigned char *p, const allocation &a)
{
#ifdef __SANITIZE_ADDRESS__
    (void)p, (void)a; /* poisoned: who touches them is caught in the act */
#else
    for (int i = 0; i < EDGE; i++)
        if (p[-1 - i] != EDGE_BYTE || p[a.bytes + (size_t)i] != EDGE_BYTE)
            return false;
#endif
    return true;
}

static void check_edges(const char *after)
{
    for (auto &it : allocations) {
        const unsigned char *p = (const unsigned char *)it.first;
        if (edges_hold(p, it.second))
            continue;
        simt_report("after %s: the edge of an allocation of %zu bytes was written over", after, it.second.bytes);
        memset((void *)(p - EDGE), EDGE_BYTE, EDGE);
        memset((void *)(p + it.second.bytes), EDGE_BYTE, EDGE);
    }
}

static void release(gpu *g, void *p, bool host)
{
    guard hold(lock);
    if (!p)
        return;
    auto it = allocations.find((uintptr_t)p);
    if (it == allocations.end() || it->second.host != host || it->second.g != g) {
        simt_report("%s of %p, which it did not give", host ? "gpu_host_free" : "gpu_free", p);
        return;
    }
    allocation a = it->second;
    if (!edges_hold((unsigned char *)p, a))
        simt_report("the edge of an allocation of %zu bytes was written over", a.bytes);
    g->used -= host ? 0 : a.bytes;
    allocations.erase(it);
    __asan_unpoison_memory_region((unsigned char *)p - EDGE, EDGE);
    __asan_unpoison_memory_region((unsigned char *)p + a.bytes, EDGE);
    memset(p, 0xff, a.bytes); /* who still reads it reads NaNs */
    free(a.raw);
}

void *gpu_alloc(struct gpu *g, size_t bytes)
{
    return allocate(g, bytes, false);
}

void gpu_free(struct gpu *g, void *p)
{
    release(g, p, false);
}

void *gpu_host_alloc(struct gpu *g, size_t bytes)
{
    return allocate(g, bytes, true);
}

void gpu_host_free(struct gpu *g, void *p)
{
    release(g, p, true);
}

int gpu_memory(struct gpu *g, uint64_t *free_bytes, uint64_t *total_bytes)
{
    guard hold(lock);
    if (enter(g, "gpu_memory"))
        return ST_EDEVICE;
    *free_bytes = g->limit - g->used;
    *total_bytes = g->limit;
    return ST_OK;
}

/* ---- the device ------------------------------------------------------------------------------------------------------- */

int gpu_open(struct gpu **out, struct err *e)
{
    guard hold(lock);
    *out = NULL;
    if (device_cc == 0 || injected())
        return err_set(e, ST_EUNSUP, "no CUDA device (emulated)");
    gpu *g = new gpu;
    snprintf(g->info.name, sizeof g->info.name, "emulated sm_%d", device_cc);
    g->info.cc = device_cc;
    g->info.sms = 4;
    g->info.smem_block = device_cc >= 90 ? 227 * 1024 : 163 * 1024;
    g->info.smem_sm = g->info.smem_block + 1024;
    g->info.l2_bytes = (device_cc >= 90 ? 50u : 40u) << 20;
    g->info.driver = g->info.runtime = 13000;
    g->limit = device_bytes;
    n_gpus++;
    *out = g;
    return ST_OK;
}

void gpu_close(struct gpu *g)
{
    guard hold(lock);
    if (!g)
        return;
    size_t left = g->streams.size() + g->n_events + g->n_graphs;
    for (auto &it : allocations)
        left += it.second.g == g;
    if (left)
        simt_report("gpu_close: %zu streams, events, graphs and allocations still exist", left);
    n_gpus--;
    delete g;
}

const struct gpu_info *gpu_info(const struct gpu *g)
{
    return &g->info;
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
            fail(g, "gpu_copy", "illegal address");
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
            fail(g, o.launch.name, "the emulation gave up");
            return;
        }
        check_edges(o.launch.name);
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
    guard hold(lock);
    *out = NULL;
    if (enter(g, "gpu_stream_create"))
        return ST_EDEVICE;
    *out = new gpu_stream;
    (*out)->g = g;
    g->streams.push_back(*out);
    n_things++;
    return ST_OK;
}

void gpu_stream_destroy(struct gpu_stream *s)
{
    guard hold(lock);
    if (!s)
        return;
    run_until(s->g, stream_is_empty, s);
    s->g->streams.erase(std::find(s->g->streams.begin(), s->g->streams.end(), s));
    delete s->capture;
    delete s;
    n_things--;
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
    guard hold(lock);
    if (enter_stream(s, "gpu_stream_sync"))
        return ST_EDEVICE;
    return run_until(s->g, stream_is_empty, s);
}

int gpu_copy_batch(struct gpu_stream *s, void *const *dst, const void *const *src, size_t bytes, uint32_t n)
{
    guard hold(lock);
    if (enter(s->g, "gpu_copy"))
        return ST_EDEVICE;
    op o;
    o.kind = op::COPY;
    o.bytes = bytes;
    for (uint32_t i = 0; i < n && bytes; i++)
        o.places.push_back({dst[i], src[i]});
    if (!check_places(o))
        return fail(s->g, "gpu_copy", "invalid argument");
    return o.places.empty() ? ST_OK : ask(s, std::move(o));
}

int gpu_copy(struct gpu_stream *s, void *dst, const void *src, size_t bytes)
{
    return gpu_copy_batch(s, &dst, &src, bytes, 1);
}

int gpu_zero(struct gpu_stream *s, void *dst, size_t bytes)
{
    guard hold(lock);
    if (enter(s->g, "gpu_zero"))
        return ST_EDEVICE;
    op o;
    o.kind = op::ZERO;
    o.bytes = bytes;
    if (bytes)
        o.places.push_back({dst, NULL});
    if (!check_places(o))
        return fail(s->g, "gpu_zero", "invalid argument");
    return o.places.empty() ? ST_OK : ask(s, std::move(o));
}

int gpu_sim_launch(struct gpu_stream *s, const struct simt_launch *l)
{
    guard hold(lock);
    if (enter(s->g, l->name))
        return ST_EDEVICE;
    if (!l->grid.x || !l->grid.y || !l->grid.z || l->grid.x > 0x7fffffffu || l->grid.y > 65535 || l->grid.z > 65535 ||
        !l->threads || l->threads > SIMT_THREADS_MAX)
        return fail(s->g, l->name, "invalid configuration argument");
    if (l->smem > s->g->info.smem_block)
        return fail(s->g, l->name, "too much shared memory requested for launch");
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
    guard hold(lock);
    *out = NULL;
    if (enter(g, "gpu_event_create"))
        return ST_EDEVICE;
    *out = new gpu_event{g, timed, std::make_shared<moment>()};
    g->n_events++;
    n_things++;
    return ST_OK;
}

void gpu_event_destroy(struct gpu_event *v)
{
    guard hold(lock);
    if (!v)
        return;
    v->g->n_events--;
    n_things--;
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
    guard hold(lock);
    return enter_stream(s, "gpu_event_record") ? ST_EDEVICE : ask_event(s, v, true);
}

int gpu_stream_wait(struct gpu_stream *s, struct gpu_event *v)
{
    guard hold(lock);
    return enter_stream(s, "gpu_stream_wait") ? ST_EDEVICE : ask_event(s, v, false);
}

int gpu_event_poll(struct gpu_event *v)
{
    guard hold(lock);
    if (enter(v->g, "gpu_event_poll"))
        return ST_EDEVICE;
    if (!is_done(v))
        for (uint64_t n = simt_random() >> 20 & 3; n && step(v->g); n--)
            ;
    return v->g->failed ? (int)ST_EDEVICE : (int)is_done(v);
}

int gpu_event_wait(struct gpu_event *v)
{
    guard hold(lock);
    if (enter(v->g, "gpu_event_wait"))
        return ST_EDEVICE;
    return run_until(v->g, is_done, v);
}

int gpu_event_us(struct gpu_event *from, struct gpu_event *to, double *us)
{
    guard hold(lock);
    if (enter(from->g, "gpu_event_us"))
        return ST_EDEVICE;
    if (!from->timed || !to->timed || !from->state->asked || !to->state->asked || !is_done(from) || !is_done(to))
        return fail(from->g, "gpu_event_us", "invalid resource handle, or not ready");
    *us = to->state->us - from->state->us;
    return ST_OK;
}

/* ---- graphs ----------------------------------------------------------------------------------------------------------- */

int gpu_capture_begin(struct gpu_stream *s)
{
    guard hold(lock);
    if (enter_stream(s, "gpu_capture_begin"))
        return ST_EDEVICE;
    s->capture = new gpu_graph{s->g, {}};
    return ST_OK;
}

int gpu_capture_end(struct gpu_stream *s, struct gpu_graph **out)
{
    guard hold(lock);
    *out = NULL;
    gpu_graph *h = s->capture;
    s->capture = nullptr;
    if (!h)
        fail(s->g, "gpu_capture_end", "stream is not capturing");
    if (enter(s->g, "gpu_capture_end")) {
        delete h;
        return ST_EDEVICE;
    }
    s->g->n_graphs++;
    n_things++;
    *out = h;
    return ST_OK;
}

int gpu_graph_launch(struct gpu_graph *h, struct gpu_stream *s)
{
    guard hold(lock);
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
    guard hold(lock);
    if (!h)
        return;
    h->g->n_graphs--;
    n_things--;
    delete h;
}

/* ---- for tests -------------------------------------------------------------------------------------------------------- */

void gpu_sim_device(int cc)
{
    guard hold(lock);
    device_cc = cc;
}

void gpu_sim_memory(uint64_t bytes)
{
    guard hold(lock);
    device_bytes = bytes;
}

void gpu_sim_fail_after(uint32_t n)
{
    guard hold(lock);
    fail_in = n;
}

uint32_t gpu_sim_live(void)
{
    guard hold(lock);
    return n_gpus + n_things + (uint32_t)allocations.size();
}
