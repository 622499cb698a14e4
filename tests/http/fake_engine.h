/* An engine that echoes: each request generates its own prompt, token by token, on a thread of its own, and then stops. It
 * implements the functions of engine.h; the test programs that include it never link the real one. */
#ifndef TESTS_FAKE_ENGINE_H
#define TESTS_FAKE_ENGINE_H

#include "engine.h"
#include "clock.h"
#include "mem.h"
#include "ring.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { FAKE_SLOTS = 8, FAKE_PROMPT_MAX = 65536, FAKE_VOCAB = 300 };

struct fake_slot {
    bool used, running, cancel;
    uint32_t gen, n_prompt, n_out, max_tokens, cls;
    int32_t *prompt;
    bool ignore_eos;
    int32_t n_logprobs;
    int64_t arrival_ns, first_ns;
};

struct engine {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct fake_slot slots[FAKE_SLOTS];
    struct ring *events;
    bool quit;
    _Atomic uint32_t step_us, hold; /* hold: no tokens, but cancels are seen */
    _Atomic uint64_t submits, cancels, tokens, releases, tokens_after_cancel;
    struct engine_request last; /* pointers in it are stale */
    _Atomic uint32_t fail_next; /* END with an error after so many tokens + 1 */
    _Atomic bool device_failed;
    struct engine_class_stats cls[ENGINE_CLASSES]; /* what engine_stats shows of them */
    uint32_t host_blocks;
};

static void fake_emit(struct engine *g, struct engine_event *ev)
{
    ev->t_ns = clock_now_ns();
    while (ring_push(g->events, ev))
        sched_yield();
}

static void fake_end(struct engine *g, uint32_t i, enum engine_finish finish)
{
    struct fake_slot *s = &g->slots[i];
    s->running = false;
    fake_emit(g, &(struct engine_event){.slot = i,
                                        .gen = s->gen,
                                        .type = ENGINE_END,
                                        .finish = (uint8_t)finish,
                                        .status = finish == ENGINE_FINISH_ERROR ? ST_EDEVICE : ST_OK,
                                        .cls = (uint8_t)s->cls,
                                        .n_prompt = s->n_prompt,
                                        .n_cached = s->n_prompt / 16 * 16,
                                        .n_output = s->n_out,
                                        .arrival_ns = s->arrival_ns,
                                        .scheduled_ns = s->arrival_ns,
                                        .first_token_ns = s->first_ns});
}

static void fake_step(struct engine *g, uint32_t i)
{
    struct fake_slot *s = &g->slots[i];
    if (s->cancel) {
        fake_end(g, i, ENGINE_FINISH_CANCEL);
        return;
    }
    if (atomic_load(&g->hold))
        return;
    if (atomic_load(&g->fail_next) && s->n_out + 1 >= atomic_load(&g->fail_next)) {
        atomic_store(&g->fail_next, 0);
        fake_end(g, i, ENGINE_FINISH_ERROR);
        return;
    }
    if (!s->ignore_eos && s->n_out == s->n_prompt) {
        fake_end(g, i, ENGINE_FINISH_STOP);
        return;
    }
    struct engine_event ev = {.slot = i, .gen = s->gen, .type = ENGINE_TOKEN};
    ev.sample.token = s->prompt[s->n_out % s->n_prompt];
    ev.sample.logprob = -0.5f;
    ev.sample.n_top = s->n_logprobs > 0 ? (uint32_t)s->n_logprobs : 0;
    for (uint32_t k = 0; k < ev.sample.n_top; k++) {
        ev.sample.top[k].token = (int32_t)('a' + k);
        ev.sample.top[k].logprob = -1.0f - (float)k;
    }
    s->n_out++;
    atomic_fetch_add(&g->tokens, 1);
    if (!s->first_ns)
        s->first_ns = clock_now_ns();
    fake_emit(g, &ev);
    if (s->n_out == s->max_tokens)
        fake_end(g, i, ENGINE_FINISH_LENGTH);
}

static void *fake_thread(void *arg)
{
    struct engine *g = arg;
    pthread_mutex_lock(&g->lock);
    while (!g->quit) {
        uint32_t running = 0;
        for (uint32_t i = 0; i < FAKE_SLOTS; i++)
            if (g->slots[i].running) {
                fake_step(g, i);
                running++;
            }
        uint32_t us = atomic_load(&g->step_us);
        if (!running) {
            pthread_cond_wait(&g->more, &g->lock);
        } else {
            pthread_mutex_unlock(&g->lock);
            nanosleep(&(struct timespec){.tv_nsec = us * 1000L}, NULL);
            pthread_mutex_lock(&g->lock);
        }
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

static struct engine *fake_engine_create(void)
{
    struct engine *g = mem_zalloc(1, sizeof *g);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->more, NULL);
    assert(g && ring_create(&g->events, 4096, sizeof(struct engine_event)) == ST_OK);
    atomic_store(&g->step_us, 200);
    pthread_create(&g->thread, NULL, fake_thread, g);
    return g;
}

static void fake_engine_destroy(struct engine *g)
{
    pthread_mutex_lock(&g->lock);
    g->quit = true;
    pthread_cond_signal(&g->more);
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->thread, NULL);
    for (uint32_t i = 0; i < FAKE_SLOTS; i++)
        mem_free(g->slots[i].prompt);
    ring_destroy(g->events);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->more);
    mem_free(g);
}

int engine_submit(struct engine *g, const struct engine_request *r, uint32_t *slot_out, uint32_t *gen_out,
                  struct err *e)
{
    for (uint32_t i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= FAKE_VOCAB)
            return err_set(e, ST_EINVAL, "prompt: token %d is outside the vocabulary of %d",
                           (int)r->prompt[i], FAKE_VOCAB);
    pthread_mutex_lock(&g->lock);
    int st = err_set(e, ST_EBUSY, "The server is busy: %d of %d", FAKE_SLOTS, FAKE_SLOTS);
    for (uint32_t i = 0; i < FAKE_SLOTS && st; i++) {
        struct fake_slot *s = &g->slots[i];
        if (s->used)
            continue;
        int32_t *prompt = mem_alloc(r->n_prompt * sizeof *prompt);
        st = prompt ? ST_OK : ST_ENOMEM;
        if (!prompt)
            break;
        *s = (struct fake_slot){.used = true,
                                .prompt = prompt,
                                .running = true,
                                .gen = s->gen,
                                .n_prompt = r->n_prompt,
                                .cls = engine_class(g, r->priority, r->strict_priority),
                                .max_tokens = r->max_tokens,
                                .ignore_eos = r->ignore_eos,
                                .n_logprobs = r->n_logprobs,
                                .arrival_ns = r->arrival_ns};
        memcpy(s->prompt, r->prompt, r->n_prompt * sizeof *s->prompt);
        g->last = *r;
        *slot_out = i;
        *gen_out = s->gen;
        atomic_fetch_add(&g->submits, 1);
    }
    pthread_cond_signal(&g->more);
    pthread_mutex_unlock(&g->lock);
    return st;
}

void engine_cancel(struct engine *g, uint32_t slot, uint32_t gen)
{
    pthread_mutex_lock(&g->lock);
    struct fake_slot *s = &g->slots[slot];
    if (s->used && s->gen == gen && s->running && !s->cancel) {
        s->cancel = true;
        atomic_fetch_add(&g->cancels, 1);
    }
    pthread_mutex_unlock(&g->lock);
}

void engine_release(struct engine *g, uint32_t slot, uint32_t gen)
{
    pthread_mutex_lock(&g->lock);
    struct fake_slot *s = &g->slots[slot];
    assert(s->used && s->gen == gen && !s->running);
    mem_free(s->prompt);
    *s = (struct fake_slot){.gen = gen + 1};
    atomic_fetch_add(&g->releases, 1);
    pthread_mutex_unlock(&g->lock);
}

int engine_event_fd(const struct engine *g)
{
    return ring_fd(g->events);
}

bool engine_pop_event(struct engine *g, struct engine_event *out)
{
    return ring_pop(g->events, out);
}

bool engine_event_sleep(struct engine *g)
{
    return ring_sleep(g->events);
}

void engine_event_drain_fd(struct engine *g)
{
    ring_drain_fd(g->events);
}

uint32_t engine_slots(const struct engine *g)
{
    (void)g;
    return FAKE_SLOTS;
}

uint32_t engine_places(const struct engine *g, uint32_t cls)
{
    (void)g;
    return FAKE_SLOTS - (cls == 0); /* one is kept for those above the lowest */
}

/* The classes of the real one by default; 7 s for each class that one may still rise. */
uint32_t engine_class(const struct engine *g, int32_t priority, int32_t strict_priority)
{
    (void)g;
    return strict_priority > 0 || priority >= 10 ? 3 : priority >= 5 ? 2 : priority >= 0 ? 1 : 0;
}

uint32_t engine_retry_after_s(const struct engine *g, uint32_t cls)
{
    (void)g;
    return 1 + 7 * (ENGINE_CLASSES - 1 - cls);
}

bool engine_slot_view(const struct engine *g, uint32_t slot, uint32_t gen, struct engine_slot_view *out)
{
    struct engine *w = (struct engine *)(uintptr_t)g;
    pthread_mutex_lock(&w->lock);
    const struct fake_slot *s = &g->slots[slot];
    bool found = s->used && s->gen == gen && s->running;
    *out = (struct engine_slot_view){.state = s->n_out ? ENGINE_SLOT_DECODE : ENGINE_SLOT_QUEUED,
                                     .cls = (uint8_t)s->cls,
                                     .n_computed = s->n_out ? s->n_prompt + s->n_out - 1 : 0,
                                     .n_output = s->n_out,
                                     .n_blocks = s->n_prompt / 16 + 1,
                                     .n_preempted = 2};
    pthread_mutex_unlock(&w->lock);
    return found;
}

void engine_stats(const struct engine *g, struct engine_stats *out)
{
    *out = (struct engine_stats){.blocks_total = 100,
                                 .host_blocks_total = g->host_blocks,
                                 .host_blocks_cached = g->host_blocks / 2,
                                 .host_blocks_free = g->host_blocks / 4,
                                 .blocks_free = 60,
                                 .blocks_cached = 30,
                                 .output_tokens = atomic_load(&g->tokens),
                                 .failed = atomic_load(&g->device_failed)};
    memcpy(out->cls, g->cls, sizeof out->cls);
}

#endif
