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
 * atomics and ptx_ld_cg, which are not recorded. Many may store one value. With programmatic launches, what a kernel has
 * written may not be read, and nothing may be written, before ptx_pdl_wait; what was written before the last plain launch may:
 * that one waited for all of it to end, and whatever came behind could begin only after it. */
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
    uint8_t kind;
};

struct readers {
    place at;
    uint32_t stamp, lanes[4]; /* of each byte */
};

struct cell {
    struct writer writer[2];
    uint32_t in_flight; /* the block whose copy has not landed */
    uint32_t read_by;   /* warps, since the last store */
};

struct seen {
    place at;
    uint32_t launch, block, stamp;
    uint16_t thread;
    uint8_t bytes;
    bool many_blocks;
};

struct global_cell {
    struct seen written, read;
    bool by_kernel; /* in any launch */
};

enum { CELLS = 64 * 1024, PAGE = 4096 };

static struct cell *cells;      /* [CELLS], pages of it as they are touched */
static struct readers *readers; /* [SIMT_WARPS_MAX][CELLS], likewise */
static std::unordered_map<uintptr_t, struct global_cell *> *pages;
static uint32_t know[SIMT_WARPS_MAX][SIMT_WARPS_MAX], launch_number, block_number;
static uint32_t plain_launch; /* the last one without pdl */

/* ---- order ------------------------------------------------------------------------------------------------------------ */

static inline uint32_t now(uint32_t warp)
{
    return know[warp][warp];
}

void simt_race_block(void)
{
    if (!cells) {
        cells = (struct cell *)simt_map(sizeof *cells * CELLS);
        readers = (struct readers *)simt_map(sizeof *readers * CELLS * SIMT_WARPS_MAX);
        pages = new std::unordered_map<uintptr_t, struct global_cell *>;
    }
    for (uint32_t w = 0; w < SIMT_WARPS_MAX; w++)
        know[w][w]++;
    for (uint32_t w = 0; w < SIMT_WARPS_MAX; w++)
        for (uint32_t v = 0; v < SIMT_WARPS_MAX; v++)
            know[w][v] = know[v][v];
    block_number++;
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

/* An access, and the bytes of it that lie in one cell, as bits. */
enum access_kind { READ, STORE, COPY, ATOMIC };

struct access {
    const struct simt_thread *me;
    const void *p;
    size_t bytes;
    enum access_kind kind;
    place at;
};

static const char *const kind_names[] = {"reads", "writes", "copies to", "an atomic"};

[[noreturn]] static void conflict(const struct access *a, uint32_t other, place theirs, const char *did)
{
    report_race(a->p, a->at, kind_names[a->kind], other, theirs, did);
}

/* Two unordered stores of one value are no race. What the second one stores is known when its thread does its next thing. */
static struct {
    bool open;
    struct access access;
    unsigned char before[16];
    uint32_t other;
    place theirs;
    const char *did;
} doubt;

void simt_race_launch(bool pdl)
{
    launch_number++;
    if (!pdl)
        plain_launch = launch_number;
    doubt.open = false;
}

void simt_race_settle(void)
{
    if (!doubt.open)
        return;
    doubt.open = false;
    if (memcmp(doubt.access.p, doubt.before, doubt.access.bytes) != 0)
        conflict(&doubt.access, doubt.other, doubt.theirs, doubt.did);
}

static void two_stores(const struct access *a, uint32_t other, place theirs, const char *did)
{
    if (a->bytes > sizeof doubt.before)
        conflict(a, other, theirs, did);
    memcpy(doubt.before, a->p, a->bytes);
    doubt.open = true;
    doubt.access = *a;
    doubt.other = other;
    doubt.theirs = theirs;
    doubt.did = did;
}

/* ---- shared memory ---------------------------------------------------------------------------------------------------- */

static void check_writers(const struct cell *c, const struct access *a, uint32_t mask)
{
    if (c->in_flight == block_number)
        conflict(a, c->writer[0].thread, c->writer[0].at, "copies to (not waited for)");
    for (int i = 0; i < 2; i++) {
        const struct writer *w = &c->writer[i];
        if (!(w->bytes & mask) || (a->kind == ATOMIC && w->kind == ATOMIC) || ordered(a->me, w->thread, w->stamp))
            continue;
        if (a->kind != STORE || w->kind != STORE)
            conflict(a, w->thread, w->at, "writes");
        two_stores(a, w->thread, w->at, "writes");
    }
}

static void check_readers(uint32_t at, const struct access *a, uint32_t mask)
{
    uint32_t mine = a->me->warp->index;
    for (uint32_t left = cells[at].read_by; left; left &= left - 1) {
        uint32_t w = (uint32_t)__builtin_ctz(left), others = 0;
        const struct readers *r = &readers[w * CELLS + at];
        if (r->stamp < know[mine][w])
            continue;
        for (int i = 0; i < 4; i++)
            others |= mask >> i & 1 ? r->lanes[i] : 0;
        if (w == mine)
            others &= ~(1u << a->me->lane);
        if (others)
            conflict(a, w * 32 + (uint32_t)__builtin_ctz(others), r->at, "reads");
    }
}

static void smem_read(uint32_t at, const struct access *a, uint32_t mask)
{
    uint32_t warp = a->me->warp->index, stamp = now(warp), bit = 1u << a->me->lane;
    struct readers *r = &readers[warp * CELLS + at];
    check_writers(&cells[at], a, mask);
    if (r->stamp != stamp)
        *r = {a->at, stamp, {0, 0, 0, 0}};
    for (int i = 0; i < 4; i++)
        r->lanes[i] |= mask >> i & 1 ? bit : 0;
    r->at = a->at;
    cells[at].read_by |= 1u << warp;
}

/* After a store that is ordered behind all readers, who is ordered behind the store is behind them too: they are forgotten.
 * Atomics are not ordered among each other, and the readers of other bytes stay. */
static void smem_write(uint32_t at, const struct access *a, uint32_t mask)
{
    struct cell *c = &cells[at];
    struct writer *w = &c->writer[0];
    check_writers(c, a, mask);
    check_readers(at, a, mask);
    if (a->kind != ATOMIC && mask == 15)
        c->read_by = 0;
    if (w->thread != a->me->index && (w->bytes & ~mask) && !ordered(a->me, w->thread, w->stamp))
        c->writer[1] = *w;
    *w = {a->at, now(a->me->warp->index), (uint16_t)a->me->index, (uint8_t)mask, (uint8_t)a->kind};
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

/* Is what `s` tells of unordered with the access? */
static bool unordered(const struct seen *s, const struct access *a, uint32_t mask)
{
    return s->launch == launch_number && s->bytes & mask &&
           (s->block != block_number || s->many_blocks || !ordered(a->me, s->thread, s->stamp));
}

static void see(struct seen *s, const struct access *a, uint32_t mask)
{
    bool again = s->launch == launch_number;
    s->many_blocks = again && (s->many_blocks || s->block != block_number);
    s->bytes = (uint8_t)(again && s->thread == a->me->index ? s->bytes | mask : mask);
    s->launch = launch_number;
    s->block = block_number;
    s->thread = (uint16_t)a->me->index;
    s->stamp = now(a->me->warp->index);
    s->at = a->at;
}

static void global_access(struct global_cell *c, const struct access *a, uint32_t mask)
{
    bool read = a->kind == READ;
    if (read && simt_block.launch->pdl && !a->me->waited_pdl && c->by_kernel && c->written.launch >= plain_launch) {
        char here[300], there[300];
        simt_broken("race", 0, "reads at %s before ptx_pdl_wait what a kernel has written at %s",
                    name_place(here, sizeof here, a->at), name_place(there, sizeof there, c->written.at));
    }
    if (unordered(&c->written, a, mask)) {
        const char *did = c->written.block == block_number ? "writes" : "of another block writes";
        if (read)
            conflict(a, c->written.thread, c->written.at, did);
        two_stores(a, c->written.thread, c->written.at, did);
    }
    if (!read && unordered(&c->read, a, mask))
        conflict(a, c->read.thread, c->read.at,
                 c->read.block == block_number && !c->read.many_blocks ? "reads" : "of another block reads");
    see(read ? &c->read : &c->written, a, mask);
    c->by_kernel |= !read;
}

/* ---- accesses --------------------------------------------------------------------------------------------------------- */

static void outside(const struct access *a)
{
    extern char __executable_start, end;
    const char *c = (const char *)a->p, *params = (const char *)simt_block.launch->params;
    char text[300];
    if (a->kind == READ && ((c >= &__executable_start && c < &end) ||
                            (c >= params && c < params + simt_block.launch->params_bytes)))
        return;
    simt_broken("race", 0, "%s of %zu bytes at %s: %p is outside of what was allocated", a->kind == READ ? "read" : "write",
                a->bytes, name_place(text, sizeof text, a->at), a->p);
}

static void access_memory(const void *p, size_t bytes, enum access_kind kind, place at)
{
    struct access a = {simt_me(), p, bytes, kind, at};
    simt_race_settle();
    bool shared = simt_in_smem(p, bytes);
    if (!shared && !gpu_sim_owns(p, bytes)) {
        outside(&a);
        return;
    }
    if (!shared && kind != READ && simt_block.launch->pdl && !a.me->waited_pdl) {
        char text[300];
        simt_broken("race", 0, "writes at %s before ptx_pdl_wait", name_place(text, sizeof text, at));
    }
    if (!shared && kind == ATOMIC)
        return;
    uintptr_t from = shared ? (uintptr_t)((const unsigned char *)p - simt_now.smem) : (uintptr_t)p, to = from + bytes;
    for (uintptr_t i = from & ~(uintptr_t)3; i < to; i += 4) {
        uint32_t mask = 15;
        if (i < from)
            mask &= 15u << (from - i);
        if (i + 4 > to)
            mask &= 15u >> (i + 4 - to);
        if (shared && kind == READ)
            smem_read((uint32_t)i / 4, &a, mask);
        else if (shared)
            smem_write((uint32_t)i / 4, &a, mask);
        else
            global_access(global_cell(i), &a, mask);
    }
}

void simt_race_access(const void *p, size_t bytes, bool atomic, const char *file, int line)
{
    access_memory(p, bytes, atomic ? ATOMIC : READ, place_of(file, line));
}

void simt_race_copy(const void *p, bool landed, const char *file, int line)
{
    struct cell *c = &cells[((const unsigned char *)p - simt_now.smem) / 4];
    for (int i = 0; i < 4 && landed; i++)
        c[i].in_flight = 0;
    access_memory(p, 16, COPY, place_of(file, line));
    for (int i = 0; i < 4; i++)
        c[i].in_flight = landed ? 0 : block_number;
}

/* ---- what the compiler calls ------------------------------------------------------------------------------------------ */

#ifndef __SANITIZE_THREAD__
#define SEEN(p, n, write)                                                                      \
    if (simt_self && !simt_is_private(p))                                                      \
    access_memory((p), (n), (write) ? STORE : READ, (place)(uintptr_t)__builtin_return_address(0))

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
