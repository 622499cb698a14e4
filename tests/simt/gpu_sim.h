/* gpu_sim: (internal) shared by gpu_sim.cc (streams, events, graphs) and gpu_sim_device.cc (device, memory, failures). */
#ifndef STATOR_GPU_SIM_H
#define STATOR_GPU_SIM_H

#include "simt.h"

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

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

extern std::mutex gpu_sim_lock; /* holds everything; each call of gpu.h takes it */
extern uint32_t gpu_sim_things; /* streams, events and graphs that exist */
typedef std::lock_guard<std::mutex> guard;

/* Under the lock. Every call that can fail begins with gpu_sim_enter. */
int gpu_sim_enter(gpu *g, const char *what);
int gpu_sim_fail(gpu *g, const char *what, const char *why); /* ST_EDEVICE */
void gpu_sim_check_edges(const char *after);                 /* of all allocations */

#endif
