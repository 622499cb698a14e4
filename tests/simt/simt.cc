/* The fibers. A block's threads are fibers on stacks of their own; a fiber runs until it parks in a collective or returns,
 * then another one is drawn. Blocks run one after another on one set of stacks.
 *
 * The draw prefers the warp that ran last (its 32 stacks are in the cache) and leaves it once in a while, so that both happen:
 * a warp that is far ahead of the others, and warps that run finely mixed. Stacks are a bit more than a power of two apart:
 * their tops, all of them in use, would otherwise share a few sets of the cache.
 *
 * Rejected: ucontext, whose switch is a system call for the signal mask; one OS thread per GPU thread, a thousand times slower
 * and in an order that no seed brings back. */
#include "simt_core.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "the switch between fibers is written for x86-64"
#endif

/* void simt_switch(void **save, void *load): keeps the callee-saved registers on the stack that it leaves. */
extern "C" void simt_switch(void **save, void *load);
__asm__(".text\n"
        ".globl simt_switch\n"
        ".hidden simt_switch\n"
        ".type simt_switch,@function\n"
        "simt_switch:\n"
        "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, (%rdi)\n"
        "  mov %rsi, %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
        "  pop %rdx\n"
        "  jmp *%rdx\n"
        ".size simt_switch,.-simt_switch\n");

struct simt_lane *simt_self;
struct simt_now simt_now;
struct simt_block simt_block;
unsigned char *simt_private;
size_t simt_private_bytes;

enum { STRIDE = SIMT_STACK + 17 * 64, CANARY = 64, GUARD = 64 * 1024, ARENA = 256 * 1024, FENCE = 1024 };

static struct simt_thread *threads; /* [SIMT_THREADS_MAX] */
static unsigned char *stacks, *arena;
static void *main_sp, *main_asan;
static const void *main_bottom;
static size_t main_bytes;
static uint64_t n_switches;

static uint64_t seed_set, rng;
static bool seed_known, catching, gave_up;
static char report[2048], caught[2048];

/* ---- seeds and reports ------------------------------------------------------------------------------------------------ */

void simt_seed(uint64_t seed)
{
    const char *env = getenv("SIMT_SEED");
    seed_set = env ? strtoull(env, NULL, 0) : seed;
    rng = seed_set * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
    rng += rng == 0;
    seed_known = true;
}

uint64_t simt_random(void)
{
    if (!seed_known)
        simt_seed(1);
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

void simt_catch(void)
{
    catching = true;
    caught[0] = 0;
}

const char *simt_caught(void)
{
    catching = false;
    return caught[0] ? caught : NULL;
}

static void jump(void **save, void **fake, void *load, void *load_fake, const void *bottom, size_t bytes);

/* Keeps the text in `report` or ends the program; a kernel's launch is given up. */
static void fail(void)
{
    if (!catching) {
        fprintf(stderr, "simt: %s (seed %llu)\n", report, (unsigned long long)seed_set);
        fflush(NULL);
        _Exit(86);
    }
    if (!caught[0])
        memcpy(caught, report, sizeof caught);
    if (simt_self) {
        gave_up = true;
        void *sp, *fake;
        simt_self = NULL;
        jump(&sp, &fake, main_sp, main_asan, main_bottom, main_bytes);
    }
}

void simt_report(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(report, sizeof report, fmt, ap);
    va_end(ap);
    fail();
}

void simt_broken(const char *file, int line, const char *fmt, ...)
{
    struct simt_thread *me = simt_me();
    const char *base = strrchr(file, '/');
    int n = snprintf(report, sizeof report, "%s, block (%u,%u,%u), thread %u, %s:%d: ", simt_block.launch->name,
                     simt_now.block.x, simt_now.block.y, simt_now.block.z, me->index, base ? base + 1 : file, line);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(report + n, sizeof report - (size_t)n, fmt, ap);
    va_end(ap);
    fail();
    __builtin_unreachable();
}

/* ---- fibers ----------------------------------------------------------------------------------------------------------- */

static unsigned char *stack_of(uint32_t i)
{
    return stacks + (size_t)i * STRIDE;
}

/* Under ASan both stacks are told; fake == NULL: the fiber that is left never comes back. */
static void jump(void **save, void **fake, void *load, void *load_fake, const void *bottom, size_t bytes)
{
    n_switches++;
#ifdef SIMT_ASAN
    __sanitizer_start_switch_fiber(fake, bottom, bytes);
    simt_switch(save, load);
    __sanitizer_finish_switch_fiber(fake ? *fake : NULL, NULL, NULL);
#else
    simt_switch(save, load);
#endif
    (void)fake, (void)load_fake, (void)bottom, (void)bytes;
}

static void resume(struct simt_thread *t, void **save, void **fake)
{
    simt_self = &t->lane_head;
    jump(save, fake, t->sp, t->asan, stack_of(t->index), SIMT_STACK);
}

/* A set bit of a mask that is not 0. */
static inline uint32_t draw_bit(uint32_t mask, uint32_t random)
{
    uint32_t r = random & 31, turned = mask >> r | mask << (-r & 31);
    return ((uint32_t)__builtin_ctz(turned) + r) & 31;
}

static struct simt_thread *take(struct simt_warp *w, uint32_t lane)
{
    w->ready &= ~(1u << lane);
    if (!w->ready)
        simt_block.ready &= ~(1u << w->index);
    return &threads[w->index * 32 + lane];
}

[[noreturn]] static void report_deadlock(void)
{
    const struct simt_bar *b = simt_block.bar;
    for (uint32_t i = 0; i < SIMT_BARS; i++)
        if (b[i].arrived)
            simt_broken(b[i].site.file, b[i].site.line, "barrier %u: %u of %u threads came, %u have left the kernel", i,
                        b[i].arrived, b[i].n, simt_block.n_left);
    for (uint32_t i = 0; i < simt_block.n_warps; i++) {
        const struct simt_warp *w = &simt_block.warp[i];
        if (w->arrived)
            simt_broken(w->site.file, w->site.line, "warp %u: lanes %08x of %08x came to this collective", i, w->arrived,
                        w->all);
    }
    simt_broken("simt", 0, "threads wait for nothing");
}

/* The next fiber to run; `last` is the warp that ran. */
static struct simt_thread *draw(struct simt_warp *last)
{
    uint64_t r = simt_random();
    if (!simt_block.ready)
        report_deadlock();
    if (!last->ready || (r >> 40 & 63) == 0)
        last = &simt_block.warp[draw_bit(simt_block.ready, (uint32_t)(r >> 8))];
    return take(last, draw_bit(last->ready, (uint32_t)(r >> 16)));
}

void simt_park(void)
{
    struct simt_thread *me = simt_me();
    if (simt_race_on)
        simt_race_settle();
    struct simt_thread *next = draw(me->warp);
    if (next != me)
        resume(next, &me->sp, &me->asan);
}

void simt_yield(void)
{
    struct simt_thread *me = simt_me();
    simt_wake(me->warp, 1u << me->lane);
    simt_park();
}

static void leave(struct simt_thread *me)
{
    if (simt_race_on)
        simt_race_settle();
    struct simt_warp *w = me->warp;
    if (w->arrived)
        simt_broken(w->site.file, w->site.line, "the thread has left the kernel, lanes %08x of its warp wait here", w->arrived);
    if (simt_block.bar[0].arrived)
        simt_broken(simt_block.bar[0].site.file, simt_block.bar[0].site.line,
                    "the thread has left the kernel, %u threads of its block wait here", simt_block.bar[0].arrived);
    if (simt_block.launch->pdl && !me->waited_pdl)
        simt_broken("kernel", 0, "launched with pdl, and the thread left without ptx_pdl_wait");
    w->left |= 1u << me->lane;
    simt_block.n_left++;
}

static void fiber_main(void)
{
#ifdef SIMT_ASAN
    const void *bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(NULL, &bottom, &bytes);
    if (!main_bottom)
        main_bottom = bottom, main_bytes = bytes;
#endif
    struct simt_thread *me = simt_me();
    const struct simt_launch *l = simt_block.launch;
    l->call(l->kernel, l->params);
    leave(me);
    if (simt_block.n_left < simt_block.n_threads) {
        resume(draw(me->warp), &me->sp, NULL);
    } else {
        simt_self = NULL;
        jump(&me->sp, NULL, main_sp, main_asan, main_bottom, main_bytes);
    }
    __builtin_unreachable();
}

/* ---- blocks ----------------------------------------------------------------------------------------------------------- */

void *simt_map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("simt: mmap");
        _Exit(86);
    }
    return p;
}

static void prepare(void)
{
    if (threads)
        return;
    size_t head = sizeof *threads * SIMT_THREADS_MAX;
    simt_private_bytes = head + (size_t)STRIDE * SIMT_THREADS_MAX;
    simt_private = (unsigned char *)simt_map(simt_private_bytes);
    threads = (struct simt_thread *)simt_private;
    stacks = simt_private + head;
    arena = (unsigned char *)simt_map(ARENA + 2 * GUARD) + GUARD;
    mprotect(arena - GUARD, GUARD, PROT_NONE);
    mprotect(arena + ARENA, GUARD, PROT_NONE);
}

static void begin_thread(uint32_t i)
{
    struct simt_thread *t = &threads[i];
    t->lane_head.thread = uint3{i, 0, 0};
    t->warp = &simt_block.warp[i / 32];
    t->index = i;
    t->lane = i % 32;
    t->waited_pdl = false;
    t->groups = t->copy_head = t->copy_tail = 0;
    t->asan = NULL;
    void **top = (void **)(((uintptr_t)stack_of(i) + SIMT_STACK) & ~(uintptr_t)63);
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(top - 512, 512 * sizeof *top); /* fiber_main's frame of last time: it never returned */
#endif
    *--top = NULL; /* fiber_main begins as if called: rsp % 16 == 8 */
    *--top = (void *)fiber_main;
    top -= 6;
    memset(top, 0, 6 * sizeof *top);
    t->sp = top;
    memset(stack_of(i), 0xa7, CANARY);
}

/* The block's memory ends close to the end of the arena, behind which no page is; poison lies around it. */
static void begin_block(const struct simt_launch *l)
{
    uint32_t rounded = (l->smem + 1023) & ~1023u;
    simt_now.smem = arena + ARENA - rounded;
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(arena, ARENA);
#endif
    memset(simt_now.smem - FENCE, 0xff, FENCE + rounded);
#ifdef SIMT_ASAN
    __asan_poison_memory_region(simt_now.smem - FENCE, FENCE);
    __asan_poison_memory_region(simt_now.smem + l->smem, rounded - l->smem);
#endif
    simt_block.smem_bytes = l->smem;
    simt_block.n_left = 0;
    simt_block.ready = 0;
    memset(simt_block.bar, 0, sizeof simt_block.bar);
    for (uint32_t w = 0; w < simt_block.n_warps; w++) {
        struct simt_warp *warp = &simt_block.warp[w];
        warp->index = w;
        warp->all = 0xffffffffu;
        warp->arrived = warp->left = warp->turn = 0;
        simt_wake(warp, warp->all);
    }
    for (uint32_t i = 0; i < l->threads; i++)
        begin_thread(i);
    if (simt_race_on)
        simt_race_block();
}

static bool is_filled(const unsigned char *p, size_t bytes, unsigned char with)
{
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != with)
            return false;
    return true;
}

static void end_block(const struct simt_launch *l)
{
#ifdef SIMT_ASAN
    __asan_unpoison_memory_region(arena, ARENA);
#endif
    uint32_t rounded = (l->smem + 1023) & ~1023u;
    if (!is_filled(simt_now.smem - FENCE, FENCE, 0xff) || !is_filled(simt_now.smem + l->smem, rounded - l->smem, 0xff))
        gave_up = true, simt_report("%s, block (%u,%u,%u): writes outside of its %u bytes of shared memory", l->name,
                                    simt_now.block.x, simt_now.block.y, simt_now.block.z, l->smem);
    for (uint32_t i = 0; i < l->threads; i++)
        if (!is_filled(stack_of(i), CANARY, 0xa7))
            gave_up = true, simt_report("%s: stack overflow in thread %u", l->name, i);
}

static void run_block(const struct simt_launch *l)
{
    begin_block(l);
    simt_block.launch = l;
    main_bottom = NULL;
    struct simt_thread *first = draw(&simt_block.warp[0]);
    resume(first, &main_sp, &main_asan);
    simt_self = NULL;
#ifdef SIMT_ASAN
    if (gave_up)
        __asan_unpoison_memory_region(stacks, (size_t)STRIDE * SIMT_THREADS_MAX);
#endif
    if (!gave_up)
        end_block(l);
}

/* Every block once: b -> b * step + start with a step that has no factor in common with n. */
static void run_blocks(const struct simt_launch *l)
{
    uint64_t n = (uint64_t)l->grid.x * l->grid.y * l->grid.z, step, a, b;
    do {
        step = a = simt_random() % n + 1;
        for (b = n; b; a ^= b, b ^= a, a ^= b)
            a %= b;
    } while (a != 1);
    uint64_t at = simt_random() % n;
    for (uint64_t i = 0; i < n && !gave_up; i++, at = (at + step) % n) {
        simt_now.block = uint3{(uint32_t)(at % l->grid.x), (uint32_t)(at / l->grid.x % l->grid.y),
                               (uint32_t)(at / l->grid.x / l->grid.y)};
        run_block(l);
    }
}

#ifdef SIMT_ASAN
static void run_watched(const struct simt_launch *l) /* ASan reports faults */
{
    run_blocks(l);
}
#else
static void on_fault(int sig, siginfo_t *info, void *context)
{
    (void)context;
    if (!simt_self) {
        signal(sig, SIG_DFL);
        raise(sig);
        return;
    }
    simt_broken("kernel", 0, "%s at %p", sig == SIGSEGV ? "illegal memory access" : strsignal(sig), info->si_addr);
}

static void run_watched(const struct simt_launch *l)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    struct sigaction act = {}, old[4];
    act.sa_sigaction = on_fault;
    act.sa_flags = SA_SIGINFO | SA_NODEFER; /* the handler may leave by a switch */
    for (int i = 0; i < 4; i++)
        sigaction(signals[i], &act, &old[i]);
    run_blocks(l);
    for (int i = 0; i < 4; i++)
        sigaction(signals[i], &old[i], NULL);
}
#endif

bool simt_run(const struct simt_launch *l)
{
    prepare();
    gave_up = false;
    if (l->threads == 0 || l->threads > SIMT_THREADS_MAX || l->threads % 32 || l->smem > ARENA - FENCE) {
        simt_report("%s: launched with %u threads and %u bytes of shared memory", l->name, l->threads, l->smem);
        return false;
    }
    simt_now.blocks = l->grid;
    simt_now.threads = dim3(l->threads);
    simt_block.n_threads = l->threads;
    simt_block.n_warps = l->threads / 32;
    if (simt_race_on)
        simt_race_launch(l->pdl);
    run_watched(l);
    return !gave_up;
}

uint64_t simt_switches(void)
{
    return n_switches;
}
