/* What threads do together. Lanes lay down their operands and park; the last to come does the work for all 32 and runs on:
 * one switch per lane and collective. Fragment layouts are those of the PTX ISA for m16n8k16 and ldmatrix. */
#include "simt_core.h"

/* ---- arriving --------------------------------------------------------------------------------------------------------- */

static const char *const kind_names[] = {"syncwarp", "shfl", "ballot", "ldmatrix", "mma", "barrier"};

static void check_site(struct simt_thread *me, enum simt_kind kind, const char *file, int line)
{
    struct simt_warp *w = me->warp;
    if (w->left)
        simt_broken(file, line, "%s: lanes %08x of the warp have left the kernel", kind_names[kind], w->left);
    if (!w->arrived) {
        w->kind = kind;
        w->site = simt_site{file, line};
    } else if (w->kind != kind || w->site.line != line || (w->site.file != file && strcmp(w->site.file, file) != 0)) {
        simt_broken(file, line, "%s, but lanes %08x of the warp wait at the %s of line %d", kind_names[kind], w->arrived,
                    kind_names[w->kind], w->site.line);
    }
}

/* True for the last lane of the warp, which does the work and then calls release; the others come back when it is done. */
static inline bool arrive(struct simt_thread *me, enum simt_kind kind, const char *file, int line)
{
    struct simt_warp *w = me->warp;
    check_site(me, kind, file, line);
    w->arrived |= 1u << me->lane;
    if (w->arrived == w->all)
        return true;
    simt_park();
    return false;
}

static inline void release(struct simt_thread *me)
{
    struct simt_warp *w = me->warp;
    w->arrived = 0;
    w->turn ^= 1;
    simt_wake(w, w->all & ~(1u << me->lane));
}

void simt_syncwarp(const char *file, int line)
{
    struct simt_thread *me = simt_me();
    if (arrive(me, SIMT_SYNCWARP, file, line)) {
        if (simt_race_on)
            simt_race_sync(1u << me->warp->index);
        release(me);
    }
}

uint64_t simt_shfl(uint64_t v, int by, enum simt_shuffle how, const char *file, int line)
{
    struct simt_thread *me = simt_me();
    struct simt_warp *w = me->warp;
    int lane = (int)me->lane, from = how == SIMT_XOR ? lane ^ by : how == SIMT_IDX ? by & 31 : lane >= by ? lane - by : lane;
    uint32_t turn = w->turn;
    if (from < 0 || from > 31)
        simt_broken(file, line, "shfl by %d", by);
    w->value[turn][lane] = v;
    if (arrive(me, SIMT_SHFL, file, line))
        release(me);
    return w->value[turn][from];
}

uint32_t simt_ballot(bool v, const char *file, int line)
{
    struct simt_thread *me = simt_me();
    struct simt_warp *w = me->warp;
    uint32_t turn = w->turn;
    w->value[turn][me->lane] = v;
    if (arrive(me, SIMT_BALLOT, file, line)) {
        uint32_t bits = 0;
        for (int i = 0; i < 32; i++)
            bits |= (uint32_t)w->value[turn][i] << i;
        w->ballot[turn] = bits;
        release(me);
    }
    return w->ballot[turn];
}

/* ---- barriers of the block -------------------------------------------------------------------------------------------- */

static void release_barrier(struct simt_bar *b, struct simt_thread *me)
{
    uint32_t warps = 0;
    b->arrived = 0;
    for (uint32_t i = 0; i < simt_block.n_warps; i++) {
        struct simt_warp *w = &simt_block.warp[i];
        uint32_t lanes = b->waiting[i];
        if (!lanes)
            continue;
        if (lanes != w->all)
            simt_broken(b->site.file, b->site.line, "lanes %08x of warp %u alone came to this barrier", lanes, i);
        b->waiting[i] = 0;
        warps |= 1u << i;
        simt_wake(w, w == me->warp ? lanes & ~(1u << me->lane) : lanes);
    }
    if (simt_race_on)
        simt_race_sync(warps);
}

void simt_barrier(int id, int n, const char *file, int line)
{
    struct simt_thread *me = simt_me();
    struct simt_warp *w = me->warp;
    if (id < 0 || id >= SIMT_BARS || n < 0 || n % 32 || (uint32_t)n > simt_block.n_threads || (id > 0 && n == 0))
        simt_broken(file, line, "barrier %d of %d threads", id, n);
    struct simt_bar *b = &simt_block.bar[id];
    uint32_t count = n ? (uint32_t)n : simt_block.n_threads;
    if (w->arrived)
        simt_broken(file, line, "barrier, but lanes %08x of the warp wait at the %s of line %d", w->arrived, kind_names[w->kind],
                    w->site.line);
    if (id == 0 && simt_block.n_left)
        simt_broken(file, line, "barrier, but %u threads have left the kernel", simt_block.n_left);
    if (b->arrived == 0) {
        b->n = count;
        b->site = simt_site{file, line};
    } else if (b->n != count || ((id == 0 || b->waiting[w->index]) && b->site.line != line)) {
        simt_broken(file, line, "barrier %d of %u threads, but others wait for %u threads at line %d", id, count, b->n,
                    b->site.line);
    }
    b->waiting[w->index] |= 1u << me->lane;
    if (++b->arrived == b->n)
        release_barrier(b, me);
    else
        simt_park();
}

/* ---- tensor cores ----------------------------------------------------------------------------------------------------- */

/* The 8 rows of a matrix are read at once if each is in banks of its own: 16-byte chunks of a 128-byte line. */
static void check_banks(const struct simt_warp *w, int matrix, const char *file, int line)
{
    uint32_t chunks = 0;
    for (int i = 0; i < 8; i++)
        chunks |= 1u << ((uintptr_t)w->operand[8 * matrix + i].row / 16 % 8);
    if (chunks != 0xff)
        simt_broken(file, line, "ldmatrix: rows of matrix %d share banks", matrix);
}

void simt_ldmatrix(uint32_t *r, const void *row, int matrices, bool trans, const char *file, int line)
{
    struct simt_thread *me = simt_me();
    struct simt_warp *w = me->warp;
    if ((int)me->lane < 8 * matrices) {
        if (!simt_in_smem(row, 16) || (uintptr_t)row % 16)
            simt_broken(file, line, "ldmatrix: byte %td of %u, misaligned or outside of shared memory",
                        (const unsigned char *)row - simt_now.smem, simt_block.smem_bytes);
        if (simt_race_on)
            simt_race_access(row, 16, false, file, line);
    }
    w->operand[me->lane].r = r;
    w->operand[me->lane].row = row;
    if (!arrive(me, SIMT_LDMATRIX, file, line))
        return;
    for (int m = 0; m < matrices; m++) {
        uint16_t e[8][8];
        check_banks(w, m, file, line);
        for (int i = 0; i < 8; i++)
            memcpy(e[i], w->operand[8 * m + i].row, 16);
        for (int l = 0; l < 32; l++) {
            int g = l >> 2, t = 2 * (l & 3);
            w->operand[l].r[m] = trans ? e[t][g] | (uint32_t)e[t + 1][g] << 16 : e[g][t] | (uint32_t)e[g][t + 1] << 16;
        }
    }
    release(me);
}

/* The operands of a warp's lanes, as registers hold them. In unpack and multiply no address depends on them, and checking each
 * access would be most of what a sanitizer's run takes. */
struct mma_registers {
    float c[32][4];
    uint32_t a[32][4], b[32][2];
};

__attribute__((no_sanitize("address", "undefined"))) static inline void unpack(double *lo, double *hi, uint32_t v, bool f16)
{
    *lo = f16 ? ptx_f16_f32(v) : ptx_float(v << 16);
    *hi = f16 ? ptx_f16_f32(v >> 16) : ptx_float(v & 0xffff0000u);
}

/* c[i][j] += sum over k of a[i][k] b[k][j]: products are exact in double, k ascends, one rounding in the end. */
#if defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
__attribute__((no_sanitize("address", "undefined"))) static void multiply(struct mma_registers *m, bool f16)
{
    alignas(64) double a[16][16], b[16][8], c[16][8];
    for (int l = 0; l < 32; l++) {
        int g = l >> 2, t = 2 * (l & 3);
        const uint32_t *av = m->a[l];
        const float *cv = m->c[l];
        unpack(&a[g][t], &a[g][t + 1], av[0], f16);
        unpack(&a[g + 8][t], &a[g + 8][t + 1], av[1], f16);
        unpack(&a[g][t + 8], &a[g][t + 9], av[2], f16);
        unpack(&a[g + 8][t + 8], &a[g + 8][t + 9], av[3], f16);
        unpack(&b[t][g], &b[t + 1][g], m->b[l][0], f16);
        unpack(&b[t + 8][g], &b[t + 9][g], m->b[l][1], f16);
        c[g][t] = cv[0], c[g][t + 1] = cv[1], c[g + 8][t] = cv[2], c[g + 8][t + 1] = cv[3];
    }
    for (int i = 0; i < 16; i++) {
        double sum[8];
        for (int j = 0; j < 8; j++)
            sum[j] = c[i][j];
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                sum[j] += a[i][k] * b[k][j];
        for (int j = 0; j < 8; j++)
            c[i][j] = sum[j];
    }
    for (int l = 0; l < 32; l++) {
        int g = l >> 2, t = 2 * (l & 3);
        float *cv = m->c[l];
        cv[0] = (float)c[g][t], cv[1] = (float)c[g][t + 1], cv[2] = (float)c[g + 8][t], cv[3] = (float)c[g + 8][t + 1];
    }
}

void simt_mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, bool f16, const char *file, int line)
{
    struct simt_thread *me = simt_me();
    struct simt_warp *w = me->warp;
    w->operand[me->lane].c = c;
    w->operand[me->lane].a = a;
    w->operand[me->lane].b0 = b0;
    w->operand[me->lane].b1 = b1;
    if (!arrive(me, SIMT_MMA, file, line))
        return;
    struct mma_registers m;
    for (int l = 0; l < 32; l++) {
        memcpy(m.c[l], w->operand[l].c, sizeof m.c[l]);
        memcpy(m.a[l], w->operand[l].a, sizeof m.a[l]);
        m.b[l][0] = w->operand[l].b0, m.b[l][1] = w->operand[l].b1;
    }
    multiply(&m, f16);
    for (int l = 0; l < 32; l++)
        memcpy(w->operand[l].c, m.c[l], sizeof m.c[l]);
    release(me);
}

/* ---- asynchronous copies ---------------------------------------------------------------------------------------------- */

void simt_copy_issue(void *smem, const void *gmem, uint32_t src_bytes, const char *file, int line)
{
    struct simt_thread *me = simt_me();
    if (!simt_in_smem(smem, 16) || (uintptr_t)smem % 16)
        simt_broken(file, line, "copy to byte %td of %u, misaligned or outside of shared memory",
                    (unsigned char *)smem - simt_now.smem, simt_block.smem_bytes);
    if (src_bytes > 16 || (src_bytes && ((uintptr_t)gmem % 16 || !gpu_sim_owns(gmem, src_bytes))))
        simt_broken(file, line, "copy of %u bytes from %p, misaligned or outside of what was allocated", src_bytes, gmem);
    if (me->copy_tail - me->copy_head == SIMT_COPIES)
        simt_broken(file, line, "more than %d copies in flight", SIMT_COPIES);
    me->copy[me->copy_tail++ % SIMT_COPIES] = simt_copy{(unsigned char *)smem, gmem, src_bytes, me->groups};
    if (simt_race_on)
        simt_race_copy(smem, false, file, line);
    memset(smem, 0xff, 16);
}

void simt_copy_commit(void)
{
    simt_me()->groups++;
}

void simt_copy_wait(uint32_t newest, const char *file, int line)
{
    struct simt_thread *me = simt_me();
    for (; me->copy_head != me->copy_tail; me->copy_head++) {
        const struct simt_copy *c = &me->copy[me->copy_head % SIMT_COPIES];
        if (c->group + newest >= me->groups)
            return;
        unsigned char data[16] = {0};
        if (c->bytes)
            memcpy(data, c->from, c->bytes);
        memcpy(c->to, data, 16);
        if (simt_race_on)
            simt_race_copy(c->to, true, file, line);
    }
}

/* ---- single threads --------------------------------------------------------------------------------------------------- */

void simt_atomic(const void *p, size_t bytes, const char *file, int line)
{
    if ((uintptr_t)p % bytes || !(simt_in_smem(p, bytes) || gpu_sim_owns(p, bytes)))
        simt_broken(file, line, "atomic at %p, misaligned or outside of what was allocated", p);
    if ((simt_random() >> 32 & 7) == 0)
        simt_yield();
    if (simt_race_on)
        simt_race_access(p, bytes, true, file, line);
}

void simt_read(const void *p, size_t bytes, const char *file, int line)
{
    if ((uintptr_t)p % bytes)
        simt_broken(file, line, "read of %zu bytes at %p: misaligned", bytes, p);
}

void simt_pdl_wait(void)
{
    simt_me()->waited_pdl = true;
}

uint32_t simt_smem_addr(const void *smem)
{
    return (uint32_t)((const unsigned char *)smem - simt_now.smem);
}
