/* Races: accesses of two threads to the same memory, one of them a write, with no barrier between them. Order does not matter
 * here: what was not ordered by a barrier is reported, however it happened to run.
 *
 * Who tells of an access: the compiler. Kernels built with -fsanitize=thread call __tsan_* before each of them; these are the
 * functions below instead of that library's. Copies and matrix rows are told by their wrappers.
 *
 * Order. Each warp counts its barriers (clock). know[w][v] is the count of warp v up to which all that v did comes before
 * what w does now. A barrier advances its warps and joins what they know; a warp's syncwarp is a barrier of that warp alone;
 * shuffles, ballots and mma order no memory. An access is stamped with its warp's clock: it comes before what warp w does now
 * if its stamp < know[w][its warp], or if it is of the same thread. Clocks never go back, so old blocks need no clean-up.
 *
 * Shared memory has a cell per 4 bytes: the last two writers (two, for halves of a word that two threads write), and per warp
 * the readers at one stamp. A copy in flight owns its destination: any access is reported. Global memory has a cell per 4
 * bytes with the last writer and the last reader; there a second block of the same launch is never ordered, except through
 * atomics and ptx_ld_cg, which are not recorded. With programmatic launches, what a kernel has written may not be read, and
 * nothing may be written, before ptx_pdl_wait. */
#include "simt_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <unordered_map>

bool simt_race_on;

/* A place: a return address, or a file's name with the line in the upper 16 bits. */
typedef uint64_t place;

struct writer {
    place at;
    uint32_t stamp;
    uint16_t thread;
    uint8_t bytes; /* of the cell's four, as bits */
    bool atomic;
};

struct readers {
    place at;
    uint32_t stamp, lanes;
    uint32_t bytes;
};

struct cell {
    struct writer writer[2];
    uint32_t in_flight; /* the block whose copy has not landed */
    struct readers readers[SIMT_WARPS_MAX];
};

struct global_cell {
    place written_at, read_at;
    uint32_t launch_w, launch_r, block_w, block_r, stamp_w, stamp_r;
    uint16_t thread_w, thread_r;
    uint8_t bytes_w, bytes_r;
    bool many_readers; /* blocks */
    bool by_kernel;
};

enum { CELLS = 64 * 1024, PAGE = 4096 };

static struct cell *cells; /* [CELLS], pages of it as they are touched */
static std::unordered_map<uintptr_t, struct global_cell *> *pages;
static uint32_t know[SIMT_WARPS_MAX][SIMT_WARPS_MAX], launch_number, block_number;

/* ---- order ------------------------------------------------------------------------------------------------------------ */

static inline uint32_t now(uint32_t warp)
{
    return know[warp][warp];
}

void simt_race_block(void)
{
    if (!cells) {
        cells = (struct cell *)simt_map(sizeof *cells * CELLS);
        pages = new std::unordered_map<uintptr_t, struct global_cell *>;
    }
    for (uint32_t w = 0; w < SIMT_WARPS_MAX; w++)
        know[w][w]++;
    for (uint32_t w = 0; w < SIMT_WARPS_MAX; w++)
        for (uint32_t v = 0; v < SIMT_WARPS_MAX; v++)
            know[w][v] = know[v][v];
    block_number++;
}

void simt_race_launch(void)
{
    launch_number++;
}

void simt_race_sync(uint32_t warps)
{
    uint32_t joined[SIMT_WARPS_MAX] = {0};
    for (uint32_t w = 0; w < SIMT_WARPS_MAX; w++)
        for (uint32_t v = 0; warps >> w & 1 && v < SIMT_WARPS_MAX; v++)
            joined[v] = know[w][v] > joined[v] ? know[w][v] : joined[v];
    for (uint32_t w = 0; w < SIMT_WARPS_MAX; w++)
        if (warps >> w & 1)
            joined[w] = now(w) + 1;
    for (uint32_t w = 0; w < SIMT_WARPS_MAX; w++)
        if (warps >> w & 1)
            memcpy(know[w], joined, sizeof joined);
}

static inline bool ordered(const struct simt_thread *me, uint32_t thread, uint32_t stamp)
{
    return thread == me->index || stamp < know[me->warp->index][thread / 32];
}

/* ---- reports ---------------------------------------------------------------------------------------------------------- */

static place place_of(const char *file, int line)
{
    return (uint64_t)line << 48 | (uint64_t)(uintptr_t)file;
}

/* addr2line knows what was inlined where. */
static void name_address(char *out, size_t n, uintptr_t pc)
{
    extern char __executable_start;
    char exe[512], command[700], line[400];
    size_t used = 0;
    ssize_t k = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[k > 0 ? k : 0] = 0;
    uintptr_t offset = pc - 1 - (uintptr_t)&__executable_start;
    snprintf(out, n, "code at %#zx", (size_t)offset);
    snprintf(command, sizeof command, "addr2line -i -s -e '%s' %#zx 2>/dev/null", exe, (size_t)offset);
    FILE *f = popen(command, "r");
    while (f && fgets(line, sizeof line, f) && used + 1 < n) {
        line[strcspn(line, " \n")] = 0;
        if (line[0] == '?' || strncmp(line, "simt_ptx.h", 10) == 0)
            continue;
        used += (size_t)snprintf(out + used, n - used, "%s%s", used ? " < " : "", line);
    }
    if (f)
        pclose(f);
}

static const char *name_place(char *out, size_t n, place p)
{
    const char *file = (const char *)(uintptr_t)(p & 0xffffffffffffu), *base;
    if (p >> 48 == 0) {
        name_address(out, n, (uintptr_t)p);
    } else {
        base = strrchr(file, '/');
        snprintf(out, n, "%s:%d", base ? base + 1 : file, (int)(p >> 48));
    }
    return out;
}

[[noreturn]] static void report_race(const void *p, place mine, const char *what, uint32_t other, place theirs, const char *did)
{
    char a[300], b[300], where[40];
    if (simt_in_smem(p, 1))
        snprintf(where, sizeof where, "byte %td of shared memory", (const unsigned char *)p - simt_now.smem);
    else
        snprintf(where, sizeof where, "global memory");
    simt_broken("race", 0, "%s at %s of %s, which thread %u %s at %s", what, name_place(a, sizeof a, mine), where, other, did,
                name_place(b, sizeof b, theirs));
}

/* ---- shared memory ---------------------------------------------------------------------------------------------------- */

static void check_writers(const struct cell *c, const struct simt_thread *me, const void *p, uint32_t bytes, bool atomic, place at,
                          const char *what)
{
    if (c->in_flight == block_number)
        report_race(p, at, what, c->writer[0].thread, c->writer[0].at, "copies to (not waited for)");
    for (int i = 0; i < 2; i++) {
        const struct writer *w = &c->writer[i];
        if (w->bytes & bytes && !(atomic && w->atomic) && !ordered(me, w->thread, w->stamp))
            report_race(p, at, what, w->thread, w->at, "writes");
    }
}

static void check_readers(const struct cell *c, const struct simt_thread *me, const void *p, uint32_t bytes, place at,
                          const char *what)
{
    uint32_t mine = me->warp->index;
    for (uint32_t w = 0; w < simt_block.n_warps; w++) {
        const struct readers *r = &c->readers[w];
        uint32_t others = w == mine ? r->lanes & ~(1u << me->lane) : r->lanes;
        if (others && r->bytes & bytes && r->stamp >= know[mine][w])
            report_race(p, at, what, w * 32 + (uint32_t)__builtin_ctz(others), r->at, "reads");
    }
}

static void smem_read(struct cell *c, const struct simt_thread *me, const void *p, uint32_t bytes, place at)
{
    check_writers(c, me, p, bytes, false, at, "reads");
    struct readers *r = &c->readers[me->warp->index];
    uint32_t stamp = now(me->warp->index);
    if (r->stamp != stamp)
        r->stamp = stamp, r->lanes = 0, r->bytes = 0;
    r->lanes |= 1u << me->lane;
    r->bytes |= bytes;
    r->at = at;
}

static void smem_write(struct cell *c, const struct simt_thread *me, const void *p, uint32_t bytes, bool atomic, place at)
{
    const char *what = atomic ? "an atomic" : "writes";
    check_writers(c, me, p, bytes, atomic, at, what);
    check_readers(c, me, p, bytes, at, what);
    struct writer *w = &c->writer[0];
    if (w->thread != me->index && (w->bytes & ~bytes) && !ordered(me, w->thread, w->stamp))
        c->writer[1] = *w;
    *w = {at, now(me->warp->index), (uint16_t)me->index, (uint8_t)bytes, atomic};
}

/* ---- global memory ---------------------------------------------------------------------------------------------------- */

static struct global_cell *global_cell(uintptr_t at)
{
    static uintptr_t last = ~(uintptr_t)0;
    static struct global_cell *page;
    if (at / PAGE != last) {
        struct global_cell *&entry = (*pages)[at / PAGE];
        if (!entry)
            entry = (struct global_cell *)calloc(PAGE / 4, sizeof *entry);
        page = entry;
        last = at / PAGE;
    }
    return &page[at % PAGE / 4];
}

void simt_race_forget(const void *p, size_t bytes)
{
    for (uintptr_t at = (uintptr_t)p & ~(uintptr_t)3; pages && at < (uintptr_t)p + bytes; at += 4) {
        auto it = pages->find(at / PAGE);
        if (it == pages->end())
            at = (at / PAGE + 1) * PAGE - 4;
        else
            it->second[at % PAGE / 4] = {};
    }
}

static void global_read(struct global_cell *c, const struct simt_thread *me, const void *p, uint32_t bytes, place at)
{
    char a[300], b[300];
    if (simt_block.launch->pdl && !me->waited_pdl && c->by_kernel)
        simt_broken("race", 0, "reads at %s before ptx_pdl_wait what a kernel has written at %s",
                    name_place(a, sizeof a, at), name_place(b, sizeof b, c->written_at));
    if (c->launch_w == launch_number && c->bytes_w & bytes &&
        (c->block_w != block_number || !ordered(me, c->thread_w, c->stamp_w)))
        report_race(p, at, "reads", c->thread_w, c->written_at, c->block_w == block_number ? "writes" : "of another block writes");
    if (c->launch_r != launch_number)
        c->many_readers = false, c->bytes_r = 0;
    else if (c->block_r != block_number)
        c->many_readers = true;
    c->launch_r = launch_number;
    c->block_r = block_number;
    c->thread_r = (uint16_t)me->index;
    c->stamp_r = now(me->warp->index);
    c->bytes_r |= (uint8_t)bytes;
    c->read_at = at;
}

static void global_write(struct global_cell *c, const struct simt_thread *me, const void *p, uint32_t bytes, place at)
{
    if (c->launch_w == launch_number && c->bytes_w & bytes &&
        (c->block_w != block_number || !ordered(me, c->thread_w, c->stamp_w)))
        report_race(p, at, "writes", c->thread_w, c->written_at,
                    c->block_w == block_number ? "writes" : "of another block writes");
    if (c->launch_r == launch_number && c->bytes_r & bytes &&
        (c->many_readers || c->block_r != block_number || !ordered(me, c->thread_r, c->stamp_r)))
        report_race(p, at, "writes", c->thread_r, c->read_at,
                    c->block_r == block_number && !c->many_readers ? "reads" : "of another block reads");
    c->bytes_w = (uint8_t)(c->launch_w == launch_number && c->thread_w == me->index ? c->bytes_w | bytes : bytes);
    c->launch_w = launch_number;
    c->block_w = block_number;
    c->thread_w = (uint16_t)me->index;
    c->stamp_w = now(me->warp->index);
    c->written_at = at;
    c->by_kernel = true;
}

/* ---- accesses --------------------------------------------------------------------------------------------------------- */

static void outside(const void *p, size_t bytes, bool write, place at)
{
    extern char __executable_start, end;
    const char *c = (const char *)p, *params = (const char *)simt_block.launch->params;
    char text[300];
    if (!write && ((c >= &__executable_start && c < &end) || (c >= params && c < params + simt_block.launch->params_bytes)))
        return;
    simt_broken("race", 0, "%s of %zu bytes at %s: %p is outside of what was allocated", write ? "write" : "read", bytes,
                name_place(text, sizeof text, at), p);
}

static void access(const void *p, size_t bytes, bool write, bool atomic, place at)
{
    struct simt_thread *me = simt_me();
    bool shared = simt_in_smem(p, bytes);
    if (!shared && !gpu_sim_owns(p, bytes)) {
        outside(p, bytes, write, at);
        return;
    }
    if (!shared && simt_block.launch->pdl && !me->waited_pdl && write) {
        char text[300];
        simt_broken("race", 0, "writes at %s before ptx_pdl_wait", name_place(text, sizeof text, at));
    }
    if (!shared && atomic)
        return;
    uintptr_t from = shared ? (uintptr_t)((const unsigned char *)p - simt_now.smem) : (uintptr_t)p, to = from + bytes;
    for (uintptr_t i = from & ~(uintptr_t)3; i < to; i += 4) {
        uint32_t mask = 15;
        if (i < from)
            mask &= 15u << (from - i);
        if (i + 4 > to)
            mask &= 15u >> (i + 4 - to);
        if (shared && write)
            smem_write(&cells[i / 4], me, p, mask, atomic, at);
        else if (shared)
            smem_read(&cells[i / 4], me, p, mask, at);
        else if (write)
            global_write(global_cell(i), me, p, mask, at);
        else
            global_read(global_cell(i), me, p, mask, at);
    }
}

void simt_race_access(const void *p, size_t bytes, bool write, bool atomic, const char *file, int line)
{
    access(p, bytes, write, atomic, place_of(file, line));
}

void simt_race_copy(const void *p, bool landed, const char *file, int line)
{
    struct cell *c = &cells[((const unsigned char *)p - simt_now.smem) / 4];
    for (int i = 0; i < 4 && landed; i++)
        c[i].in_flight = 0;
    access(p, 16, true, false, place_of(file, line));
    for (int i = 0; i < 4; i++)
        c[i].in_flight = landed ? 0 : block_number;
}

/* ---- what the compiler calls ------------------------------------------------------------------------------------------ */

#ifndef __SANITIZE_THREAD__
#define SEEN(p, n, write)                                                                      \
    if (simt_self && !simt_is_private(p))                                                      \
    access((p), (n), (write), false, (place)(uintptr_t)__builtin_return_address(0))

extern "C" {
void __tsan_init(void);
void __tsan_func_entry(void *);
void __tsan_func_exit(void);
void __tsan_read_range(void *p, size_t n);
void __tsan_write_range(void *p, size_t n);

void __tsan_init(void)
{
    simt_race_on = true;
}

void __tsan_func_entry(void *)
{
}

void __tsan_func_exit(void)
{
}

#define ACCESS(n)                                                \
    void __tsan_read##n(void *p);                                \
    void __tsan_write##n(void *p);                               \
    void __tsan_unaligned_read##n(void *p);                      \
    void __tsan_unaligned_write##n(void *p);                     \
    void __tsan_read##n(void *p) { SEEN(p, n, false); }          \
    void __tsan_write##n(void *p) { SEEN(p, n, true); }          \
    void __tsan_unaligned_read##n(void *p) { SEEN(p, n, false); } \
    void __tsan_unaligned_write##n(void *p) { SEEN(p, n, true); }
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)

void __tsan_read_range(void *p, size_t n)
{
    SEEN(p, n, false);
}

void __tsan_write_range(void *p, size_t n)
{
    SEEN(p, n, true);
}

/* The atomics of the wrappers have been told by simt_atomic. */
#define ATOMIC(bits)                                                                            \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int);           \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t v, int);        \
    uint##bits##_t __tsan_atomic##bits##_fetch_add(volatile uint##bits##_t *p, uint##bits##_t v, int); \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *p, int) { return *p; } \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *p, uint##bits##_t v, int) { *p = v; } \
    uint##bits##_t __tsan_atomic##bits##_fetch_add(volatile uint##bits##_t *p, uint##bits##_t v, int) \
    {                                                                                           \
        uint##bits##_t old = *p;                                                                \
        *p = old + v;                                                                           \
        return old;                                                                             \
    }
ATOMIC(32) ATOMIC(64)

void __tsan_atomic_signal_fence(int);
void __tsan_atomic_signal_fence(int)
{
}
}
#endif
