/* Fork and join in about a microsecond, and silence when there is nothing to do.
 *
 * One word counts the chunks that are left, one the chunks that are done, each on a cache line of its own. The owner writes
 * the job, then publishes `left`; whoever decrements it owns that chunk. No generation number is needed: the job cannot
 * change while a claimed chunk is not done, since run() returns only when all are. The owner claims like everyone else, so
 * a worker that the kernel has put aside before it claimed delays nothing.
 *
 * Workers spin for 200 us after the last work they saw, then sleep on a futex; a futex wake costs some 60 us, two orders
 * above the hand-off, so wake() is there to be called when a step is coming. Rejected: barriers with a static split (three
 * times slower when another process takes a core), condition variables (a sleep per op).
 *
 * A claim made before the job was published is impossible, but a claim may *load* the job's fields after it, hence the
 * acquire on the claim and the release on the publication. */
#define _GNU_SOURCE
#include "cpu_pool.h"

#include "mem.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined __x86_64__
#include <immintrin.h>
#define SPIN_PAUSE() _mm_pause()
#define SPIN_FTZ_DAZ() _mm_setcsr(_mm_getcsr() | 0x8040u)
#else
#define SPIN_PAUSE() (void)0
#define SPIN_FTZ_DAZ() (void)0
#endif

enum { POOL_THREADS_MAX = 256, POOL_SPIN_US = 200, LINE = 64 };

struct worker {
    struct cpu_pool *pool;
    pthread_t thread;
    uint32_t index;
};

struct cpu_pool {
    uint32_t n_threads;
    struct worker *workers; /* [n_threads - 1] */
    uint32_t n_started;
    /* the job: written by the owner while left == 0 and nothing is claimed */
    cpu_pool_fn *fn;
    void *ctx;
    uint32_t n_chunks;
    _Alignas(LINE) atomic_uint left;
    _Alignas(LINE) atomic_uint done;
    _Alignas(LINE) atomic_uint epoch; /* futex word: changes at every wake */
    _Alignas(LINE) atomic_uint asleep;
    atomic_bool stop;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool claim(struct cpu_pool *p, uint32_t *chunk)
{
    uint32_t left = atomic_load_explicit(&p->left, memory_order_relaxed);
    while (left) {
        if (atomic_compare_exchange_weak_explicit(&p->left, &left, left - 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *chunk = p->n_chunks - left;
            return true;
        }
    }
    return false;
}

static bool work(struct cpu_pool *p, uint32_t thread)
{
    uint32_t chunk;
    bool any = false;
    while (claim(p, &chunk)) {
        p->fn(p->ctx, chunk, thread);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        any = true;
    }
    return any;
}

static void sleep_until_woken(struct cpu_pool *p)
{
    uint32_t epoch = atomic_load(&p->epoch);
    atomic_fetch_add(&p->asleep, 1);
    /* The owner bumps epoch after publishing: seen work or a changed epoch both cancel the sleep. */
    if (atomic_load(&p->left) == 0 && !atomic_load(&p->stop))
        syscall(SYS_futex, &p->epoch, FUTEX_WAIT_PRIVATE, epoch, NULL, NULL, 0);
    atomic_fetch_sub(&p->asleep, 1);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct cpu_pool *p = w->pool;
    SPIN_FTZ_DAZ();
    uint64_t since = now_ns();
    for (uint32_t spins = 0; !atomic_load_explicit(&p->stop, memory_order_relaxed); spins++) {
        if (work(p, w->index)) {
            since = 0;
            continue;
        }
        SPIN_PAUSE();
        if (spins % 64)
            continue;
        uint64_t now = now_ns();
        if (since == 0)
            since = now;
        if (now - since > POOL_SPIN_US * 1000u) {
            sleep_until_woken(p);
            since = 0;
        }
    }
    return NULL;
}

/* One CPU of every core that this process may run on; SMT siblings of a chosen CPU are skipped. Returns their number. */
static uint32_t pick_cpus(uint32_t *cpus, uint32_t max)
{
    cpu_set_t allowed, taken;
    uint32_t n = 0;
    CPU_ZERO(&taken);
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return 0;
    for (uint32_t c = 0; c < CPU_SETSIZE && n < max; c++) {
        if (!CPU_ISSET(c, &allowed) || CPU_ISSET(c, &taken))
            continue;
        cpus[n++] = c;
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", c);
        FILE *f = fopen(path, "re");
        if (!f)
            continue;
        unsigned a, b;
        char sep = ',';
        while (fscanf(f, "%u", &a) == 1) {
            b = a;
            if (fscanf(f, "%c", &sep) == 1 && sep == '-' && fscanf(f, "%u%c", &b, &sep) < 1)
                break;
            for (; a <= b && a < CPU_SETSIZE; a++)
                CPU_SET(a, &taken);
        }
        fclose(f);
    }
    return n;
}

static int start_workers(struct cpu_pool *p, const uint32_t *cpus, uint32_t n_cpus, struct err *e)
{
    for (uint32_t i = 0; i + 1 < p->n_threads; i++) {
        struct worker *w = &p->workers[i];
        w->pool = p;
        w->index = i + 1;
        if (pthread_create(&w->thread, NULL, worker_main, w))
            return err_set(e, ST_ENOMEM, "threads: cannot start compute thread %u of %u", i + 1,
                           p->n_threads);
        p->n_started++;
        if (p->n_threads <= n_cpus) { /* more threads than cores: leave the placing to the kernel */
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpus[w->index], &one);
            pthread_setaffinity_np(w->thread, sizeof one, &one); /* a hint: slower, not wrong, when refused */
        }
    }
    return ST_OK;
}

int cpu_pool_create(struct cpu_pool **out, uint32_t n_threads, struct err *e)
{
    static const uint32_t fallback = 1;
    uint32_t cpus[POOL_THREADS_MAX];
    uint32_t n_cpus = pick_cpus(cpus, POOL_THREADS_MAX);
    if (n_threads == 0)
        n_threads = n_cpus ? n_cpus : fallback;
    if (n_threads > POOL_THREADS_MAX)
        return err_set(e, ST_EINVAL, "threads: %u is more than %d", n_threads, POOL_THREADS_MAX);
    struct cpu_pool *p = mem_map(sizeof *p); /* zeroed and cache-line aligned */
    if (!p)
        return err_set(e, ST_ENOMEM, "threads: no memory for the pool");
    p->n_threads = n_threads;
    p->workers = mem_zalloc(n_threads, sizeof *p->workers);
    int s = p->workers ? start_workers(p, cpus, n_cpus, e) : err_set(e, ST_ENOMEM, "threads: no memory");
    if (s) {
        cpu_pool_destroy(p);
        return s;
    }
    *out = p;
    return ST_OK;
}

static void wake_all(struct cpu_pool *p)
{
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->asleep))
        syscall(SYS_futex, &p->epoch, FUTEX_WAKE_PRIVATE, POOL_THREADS_MAX, NULL, NULL, 0);
}

void cpu_pool_destroy(struct cpu_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    wake_all(p);
    for (uint32_t i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    mem_free(p->workers);
    mem_unmap(p, sizeof *p);
}

uint32_t cpu_pool_threads(const struct cpu_pool *p)
{
    return p->n_threads;
}

void cpu_pool_wake(struct cpu_pool *p)
{
    if (atomic_load(&p->asleep))
        wake_all(p);
}

void cpu_pool_run(struct cpu_pool *p, uint32_t n_chunks, cpu_pool_fn *fn, void *ctx)
{
    if (n_chunks <= 1 || p->n_threads == 1) {
        for (uint32_t c = 0; c < n_chunks; c++)
            fn(ctx, c, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->n_chunks = n_chunks;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->left, n_chunks); /* seq_cst: ordered before the look at `asleep` */
    if (atomic_load(&p->asleep))
        wake_all(p);
    work(p, 0);
    for (uint32_t spins = 0; atomic_load_explicit(&p->done, memory_order_acquire) != n_chunks; spins++) {
        SPIN_PAUSE();
        if (spins > 1u << 16) { /* tens of milliseconds: its thread was put aside; let it have this core */
            sched_yield();
            spins = 0;
        }
    }
}
