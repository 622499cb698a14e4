/* simt_core: (internal) the fibers of the running block, for simt.cc, simt_warp.cc and simt_race.cc. */
#ifndef STATOR_SIMT_CORE_H
#define STATOR_SIMT_CORE_H

#include "simt.h"

enum { SIMT_WARPS_MAX = SIMT_THREADS_MAX / 32, SIMT_BARS = 16 };

struct simt_site {
    const char *file;
    int line;
};

struct simt_copy {
    unsigned char *to;
    const void *from;
    uint32_t bytes, group; /* the number of groups that this thread had committed before */
};

/* What a warp waits for: a kind of collective at a place. */
enum simt_kind { SIMT_SYNCWARP, SIMT_SHFL, SIMT_BALLOT, SIMT_LDMATRIX, SIMT_MMA, SIMT_BAR };

struct simt_warp {
    uint32_t index, all;                   /* lanes that exist */
    uint32_t ready;                        /* lanes that may run (the running one is not among them) */
    uint32_t arrived, left;                /* lanes at the current collective, lanes that have returned */
    enum simt_kind kind;
    struct simt_site site;
    /* What lanes lay down and take up. Two sets in turns: nobody lays down into a set before all have read it. */
    uint32_t turn;
    uint64_t value[2][32];
    uint32_t ballot[2];
    struct {
        float *c;
        const uint32_t *a;
        uint32_t b0, b1;
        uint32_t *r;
        const void *row;
    } operand[32];
};

struct simt_thread {
    struct simt_lane lane_head; /* first: simt_self points here */
    void *sp;                   /* while it does not run */
    void *asan;                 /* its fake stack then */
    struct simt_warp *warp;
    uint32_t index, lane;
    bool waited_pdl;
    uint32_t groups, copy_head, copy_tail; /* committed groups; copies in flight: a ring */
    struct simt_copy copy[SIMT_COPIES];
};

struct simt_bar {
    uint32_t n, arrived;
    struct simt_site site;
    uint32_t waiting[SIMT_WARPS_MAX];
};

extern struct simt_block {
    const struct simt_launch *launch;
    uint32_t n_threads, n_warps, n_left;
    uint32_t ready; /* warps with ready lanes */
    uint32_t smem_bytes;
    struct simt_warp warp[SIMT_WARPS_MAX];
    struct simt_bar bar[SIMT_BARS];
} simt_block;

static inline struct simt_thread *simt_me(void)
{
    return (struct simt_thread *)simt_self;
}

void simt_park(void); /* until another fiber makes this one ready */
void simt_yield(void);

static inline void simt_wake(struct simt_warp *w, uint32_t lanes)
{
    w->ready |= lanes;
    if (lanes)
        simt_block.ready |= 1u << w->index;
}

/* Is [p, p + bytes) shared memory of the block? */
static inline bool simt_in_smem(const void *p, size_t bytes)
{
    size_t at = (size_t)((const unsigned char *)p - simt_now.smem);
    return at < simt_block.smem_bytes && bytes <= simt_block.smem_bytes - at;
}

extern unsigned char *simt_private; /* what kernels access besides memory: the stacks and struct simt_thread of all threads */
extern size_t simt_private_bytes;

static inline bool simt_is_private(const void *p)
{
    return (size_t)((const unsigned char *)p - simt_private) < simt_private_bytes;
}

void *simt_map(size_t bytes); /* zeroed, taken as it is touched, never given back */

/* A report about the running thread. */
[[noreturn]] void simt_broken(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- simt_race.cc: nothing unless kernels were compiled for it --------------------------------------------------------- */

extern bool simt_race_on;
void simt_race_launch(bool pdl); /* a launch begins */
void simt_race_block(void);  /* a block begins */
void simt_race_sync(uint32_t warps);
void simt_race_settle(void); /* before another thread may run */
void simt_race_access(const void *p, size_t bytes, bool atomic, const char *file, int line); /* a read, or an atomic */
/* The destination of a copy in flight belongs to nobody until it has landed. */
void simt_race_copy(const void *p, bool landed, const char *file, int line);

#endif
