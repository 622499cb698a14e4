/* y = x W^T for many rows is a solved problem on NVIDIA's GPUs, and the library that solves it is part of the toolkit. What it
 * leaves to the caller is the choice among its algorithms: its heuristic's first proposal is often 5 to 20 % slower than the
 * best of its first eight. So each shape's proposals are timed once and the best one's rank is kept in a file.
 *
 * Row-major y[m][n] = x[m][k] w[n][k]^T is, to the column-major library, y^T = op(w) x^T with w transposed: both operands then
 * run along k, which is the only form that e4m3 takes and the fastest one for 16 bits. Rows of w beyond n_out are padding; the
 * library is told of n_out rows only, so nothing is stored for them.
 *
 * Rejected: keeping the algorithm's bytes or its attributes in the file (the library would be fed from a file; the rank says
 * the same and cannot be wrong by more than speed); the fused bias for 16-bit results (it wants a 16-bit bias, ours are f32). */
#define _GNU_SOURCE
#include "cu_lt.h"

#include "cu_lt_cache.h"
#include "mem.h"

#include <cublasLt.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORKSPACE = 32 << 20, WARM_UP = 3, TIMED = 10, PATH_BYTES = 1024 };

static const uint32_t buckets[] = {16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192};

struct slot {
    struct cu_lt_choice c;
    cublasLtMatmulAlgo_t algo;
    bool timed; /* c was measured, here or in the run that wrote the file */
    bool ready; /* algo is set */
};

struct cu_lt {
    struct gpu *gpu;
    cublasLtHandle_t handle;
    void *workspace;
    struct gpu_event *from[TIMED], *to[TIMED];
    struct cu_lt_id id;
    char path[PATH_BYTES]; /* of the file; empty: none */
    uint32_t n;
    struct slot slots[CU_LT_CHOICES];
    struct cu_lt_choice file[CU_LT_CHOICES]; /* scratch for reading and writing it */
};

/* A product as the library wants it told. */
struct product {
    cublasLtMatmulDescOpaque_t desc;
    cublasLtMatrixLayoutOpaque_t w, x, y;
};

uint32_t cu_lt_bucket(uint32_t m)
{
    size_t i = 0;
    while (i + 1 < sizeof buckets / sizeof *buckets && buckets[i] < m)
        i++;
    return buckets[i];
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void read_file(struct cu_lt *l)
{
    int fd = open(l->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    uint32_t n = 0;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 && st.st_size <= CU_LT_TEXT_MAX) {
        size_t size = (size_t)st.st_size;
        char *text = mem_alloc(size);
        if (text != NULL && read(fd, text, size) == (ssize_t)size)
            cu_lt_cache_parse((struct str){text, size}, &l->id, l->file, &n);
        mem_free(text);
    }
    if (fd >= 0)
        close(fd);
    for (l->n = 0; l->n < n; l->n++) {
        l->slots[l->n].c = l->file[l->n];
        l->slots[l->n].timed = true;
    }
}

/* Readers see the old file or the new one. A failure leaves the old one. */
static void write_file(struct cu_lt *l)
{
    char temp[PATH_BYTES + 16];
    struct buf text = {.limit = CU_LT_TEXT_MAX};
    uint32_t n = 0;
    if (l->path[0] == 0)
        return;
    for (uint32_t i = 0; i < l->n; i++)
        if (l->slots[i].timed)
            l->file[n++] = l->slots[i].c;
    snprintf(temp, sizeof temp, "%s.%d", l->path, (int)getpid());
    if (cu_lt_cache_print(&text, &l->id, l->file, n) == ST_OK) {
        int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        bool ok = fd >= 0 && write(fd, text.p, text.n) == (ssize_t)text.n;
        if (fd >= 0)
            ok &= close(fd) == 0;
        if (!ok || rename(temp, l->path) != 0)
            unlink(temp);
    }
    buf_fini(&text);
}

/* One file per kind of GPU, so that machines that share a cache do not overwrite each other's. */
static void name_file(struct cu_lt *l, const char *cache_dir)
{
    char gpu[sizeof l->id.gpu];
    size_t i = 0;
    mkdir(cache_dir, 0755); /* it may be there, and its parents must */
    for (; l->id.gpu[i] != 0; i++) {
        char c = l->id.gpu[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        gpu[i] = plain ? c : '_';
    }
    gpu[i] = 0;
    int n = snprintf(l->path, sizeof l->path, "%s/cublaslt_%s.txt", cache_dir, gpu);
    if (n < 0 || n >= (int)sizeof l->path)
        l->path[0] = 0;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

int cu_lt_create(struct cu_lt **out, struct gpu *g, const char *cache_dir, struct err *e)
{
    struct cu_lt *l = mem_zalloc(1, sizeof *l);
    const struct gpu_info *info = gpu_info(g);
    if (l == NULL)
        return err_set(e, ST_ENOMEM, "cuBLASLt: out of memory");
    l->gpu = g;
    cublasStatus_t st = cublasLtCreate(&l->handle);
    int rc = st == CUBLAS_STATUS_SUCCESS
                 ? ST_OK
                 : err_set(e, ST_EDEVICE, "cublasLtCreate: %s on %s", cublasLtGetStatusString(st), info->name);
    if (rc == ST_OK && (l->workspace = gpu_alloc(g, WORKSPACE)) == NULL)
        rc = err_set(e, ST_ENOMEM, "cuBLASLt: no room for its workspace of %d MiB on %s", WORKSPACE >> 20, info->name);
    for (int i = 0; i < TIMED && rc == ST_OK; i++)
        if (gpu_event_create(g, true, &l->from[i]) != ST_OK || gpu_event_create(g, true, &l->to[i]) != ST_OK)
            rc = err_set(e, ST_EDEVICE, "cuBLASLt: %s", gpu_failure(g));
    if (rc != ST_OK) {
        cu_lt_destroy(l);
        return rc;
    }
    for (size_t i = 0; info->name[i] != 0; i++)
        l->id.gpu[i] = info->name[i] >= ' ' && info->name[i] <= '~' ? info->name[i] : '?';
    l->id.sms = info->sms;
    l->id.driver = (uint32_t)info->driver;
    l->id.library = cublasLtGetVersion();
    if (cache_dir != NULL) {
        name_file(l, cache_dir);
        read_file(l);
    }
    *out = l;
    return ST_OK;
}

void cu_lt_destroy(struct cu_lt *l)
{
    if (l == NULL)
        return;
    for (int i = 0; i < TIMED; i++) {
        gpu_event_destroy(l->from[i]);
        gpu_event_destroy(l->to[i]);
    }
    gpu_free(l->gpu, l->workspace);
    if (l->handle != NULL)
        cublasLtDestroy(l->handle);
    mem_free(l);
}

/* ---- from cu_lin to the library's terms -------------------------------------------------------------------------- */

static cudaDataType data_type(uint8_t t)
{
    return t == CU_BF16 ? CUDA_R_16BF : t == CU_F16 ? CUDA_R_16F : t == CU_E4M3 ? CUDA_R_8F_E4M3 : CUDA_R_32F;
}

static int check(const struct cu_lt *l, const struct cu_lin *p)
{
    if (p->m == 0 || p->n == 0 || p->k == 0 || p->n_out == 0 || p->n_out > p->n || p->ldx < p->k || p->ldy < p->n_out ||
        p->wt > CU_E4M3 || (p->yt != CU_F32 && p->yt > CU_F16) || (p->epilogue == CU_ADD && p->yt != CU_F32))
        return ST_EINVAL;
    bool scaled = p->w_scale != NULL;
    if (p->epilogue == CU_SWIGLU || (p->bias != NULL && p->yt != CU_F32) || scaled != (p->x_scale != NULL) ||
        (scaled && p->wt != CU_E4M3) || (p->wt == CU_E4M3 && gpu_info(l->gpu)->cc < 90))
        return ST_EUNSUP;
    return gpu_failure(l->gpu) ? ST_EDEVICE : ST_OK;
}

static bool set(struct product *d, cublasLtMatmulDescAttributes_t attr, const void *value, size_t size)
{
    return cublasLtMatmulDescSetAttribute(&d->desc, attr, value, size) == CUBLAS_STATUS_SUCCESS;
}

/* false: the library does not know an attribute's value (an older one). */
static bool describe(struct product *d, const struct cu_lin *p)
{
    cublasOperation_t t = CUBLAS_OP_T;
    bool ok = cublasLtMatmulDescInit(&d->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
              cublasLtMatrixLayoutInit(&d->w, data_type(p->wt), p->k, p->n_out, p->k) == CUBLAS_STATUS_SUCCESS &&
              cublasLtMatrixLayoutInit(&d->x, data_type(p->wt), p->k, p->m, p->ldx) == CUBLAS_STATUS_SUCCESS &&
              cublasLtMatrixLayoutInit(&d->y, data_type(p->yt), p->n_out, p->m, p->ldy) == CUBLAS_STATUS_SUCCESS &&
              set(d, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
    if (p->bias != NULL) {
        cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
        cudaDataType type = CUDA_R_32F;
        ok = ok && set(d, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue) &&
             set(d, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type) &&
             set(d, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
    }
    if (p->w_scale != NULL) {
        cublasLtMatmulMatrixScale_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
        ok = ok && set(d, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode) &&
             set(d, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode) &&
             set(d, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &p->w_scale, sizeof p->w_scale) &&
             set(d, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &p->x_scale, sizeof p->x_scale);
    }
    return ok;
}

/* The library's proposals, best guess first. 0: it has none. */
static int propose(struct cu_lt *l, struct product *d, int max, cublasLtMatmulHeuristicResult_t *list)
{
    static const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreferenceOpaque_t pref;
    uint64_t room = WORKSPACE;
    uint32_t align = 16; /* what cu_lin.h promises */
    int n = 0;
    bool ok = cublasLtMatmulPreferenceInit(&pref) == CUBLAS_STATUS_SUCCESS &&
              cublasLtMatmulPreferenceSetAttribute(&pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room) ==
                  CUBLAS_STATUS_SUCCESS;
    for (int i = 0; i < 4 && ok; i++)
        ok = cublasLtMatmulPreferenceSetAttribute(&pref, sides[i], &align, sizeof align) == CUBLAS_STATUS_SUCCESS;
    if (!ok || cublasLtMatmulAlgoGetHeuristic(l->handle, &d->desc, &d->w, &d->x, &d->y, &d->y, &pref, max, list, &n) !=
                   CUBLAS_STATUS_SUCCESS)
        return 0;
    return n;
}

static int multiply(struct cu_lt *l, struct gpu_stream *s, struct product *d, const cublasLtMatmulAlgo_t *algo,
                    const struct cu_lin *p)
{
    float alpha = 1, beta = p->epilogue == CU_ADD ? 1 : 0;
    cublasStatus_t st =
        cublasLtMatmul(l->handle, &d->desc, &alpha, p->w, &d->w, p->x, &d->x, &beta, p->y, &d->y, p->y, &d->y, algo,
                       l->workspace, WORKSPACE, (cudaStream_t)gpu_stream_raw(s));
    if (st == CUBLAS_STATUS_SUCCESS)
        return ST_OK;
    if (st == CUBLAS_STATUS_NOT_SUPPORTED || st == CUBLAS_STATUS_INVALID_VALUE) /* refused before anything was launched */
        return ST_EUNSUP;
    return gpu_fail(l->gpu, "cublasLtMatmul", cublasLtGetStatusString(st));
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

static void key_of(const struct cu_lin *p, uint32_t key[CU_LT_FIELDS])
{
    key[CU_LT_M] = p->m;
    key[CU_LT_N] = p->n_out;
    key[CU_LT_K] = p->k;
    key[CU_LT_LDX] = p->ldx;
    key[CU_LT_LDY] = p->ldy;
    key[CU_LT_WT] = p->wt;
    key[CU_LT_YT] = p->yt;
    key[CU_LT_EPILOGUE] = p->epilogue;
    key[CU_LT_BIAS] = p->bias != NULL;
    key[CU_LT_SCALES] = p->w_scale != NULL;
}

/* The slot of the shape's bucket; a new one when there is none. A full table gives up its last row. */
static struct slot *find(struct cu_lt *l, const uint32_t key[CU_LT_FIELDS])
{
    uint32_t bucket = cu_lt_bucket(key[CU_LT_M]);
    for (uint32_t i = 0; i < l->n; i++) {
        const uint32_t *k = l->slots[i].c.key;
        if (memcmp(k + 1, key + 1, sizeof(uint32_t[CU_LT_FIELDS - 1])) == 0 && cu_lt_bucket(k[CU_LT_M]) == bucket)
            return &l->slots[i];
    }
    l->n += l->n < CU_LT_CHOICES;
    l->slots[l->n - 1] = (struct slot){0};
    memcpy(l->slots[l->n - 1].c.key, key, sizeof l->slots->c.key);
    return &l->slots[l->n - 1];
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median time of one algorithm. `flush`, larger than the L2 cache, is overwritten before every run: between two uses of a
 * weight a step reads all the others. */
static int time_one(struct cu_lt *l, struct gpu_stream *s, struct product *d, const cublasLtMatmulAlgo_t *algo,
                    const struct cu_lin *p, void *flush, size_t flush_bytes, double *us)
{
    double t[TIMED];
    int rc = ST_OK;
    for (int i = -WARM_UP; i < TIMED && rc == ST_OK; i++) {
        rc = gpu_zero(s, flush, flush_bytes);
        if (rc == ST_OK && i >= 0)
            rc = gpu_event_record(l->from[i], s);
        if (rc == ST_OK)
            rc = multiply(l, s, d, algo, p);
        if (rc == ST_OK && i >= 0)
            rc = gpu_event_record(l->to[i], s);
    }
    if (rc == ST_OK)
        rc = gpu_stream_sync(s);
    for (int i = 0; i < TIMED && rc == ST_OK; i++)
        rc = gpu_event_us(l->from[i], l->to[i], &t[i]);
    if (rc != ST_OK)
        return rc;
    qsort(t, TIMED, sizeof *t, ascending);
    *us = (t[TIMED / 2 - 1] + t[TIMED / 2]) / 2;
    return ST_OK;
}

/* The fastest of the proposals; ST_EUNSUP when none of them runs. */
static int time_all(struct cu_lt *l, struct gpu_stream *s, struct product *d, const struct cu_lin *p,
                    const cublasLtMatmulHeuristicResult_t *list, int n, struct cu_lt_choice *best)
{
    size_t flush_bytes = 2 * (size_t)gpu_info(l->gpu)->l2_bytes;
    void *flush = gpu_alloc(l->gpu, flush_bytes);
    int rc = flush != NULL ? ST_EUNSUP : ST_ENOMEM;
    best->ns = UINT32_MAX;
    for (int i = 0; i < n && rc != ST_ENOMEM && rc != ST_EDEVICE; i++) {
        double us;
        int one = time_one(l, s, d, &list[i].algo, p, flush, flush_bytes, &us);
        if (one == ST_OK && us * 1e3 < best->ns) {
            best->rank = (uint32_t)i;
            best->ns = (uint32_t)(us * 1e3);
        }
        if (one == ST_OK || one == ST_EDEVICE)
            rc = one;
    }
    gpu_free(l->gpu, flush);
    return rc;
}

/* Gives the slot an algorithm: the file's choice, or the fastest when there is a stream to time on, or the first proposal. */
static int settle(struct cu_lt *l, struct gpu_stream *s, struct product *d, const struct cu_lin *p,
                  const uint32_t key[CU_LT_FIELDS], struct slot *slot)
{
    cublasLtMatmulHeuristicResult_t list[CU_LT_CANDIDATES];
    int n = propose(l, d, CU_LT_CANDIDATES, list), rc = ST_OK;
    if (n == 0)
        return ST_EUNSUP;
    bool known = slot->timed && slot->c.key[CU_LT_M] == key[CU_LT_M] && slot->c.rank < (uint32_t)n;
    if (!known) {
        memcpy(slot->c.key, key, sizeof slot->c.key);
        slot->c.rank = slot->c.ns = 0;
        slot->timed = s != NULL && (rc = time_all(l, s, d, p, list, n, &slot->c)) == ST_OK;
        if (slot->timed)
            write_file(l);
    }
    slot->ready = rc == ST_OK;
    if (slot->ready)
        slot->algo = list[slot->c.rank].algo;
    return rc;
}

/* The product as the library sees it, and where its choice stands. */
static int look_up(struct cu_lt *l, const struct cu_lin *p, struct product *d, uint32_t key[CU_LT_FIELDS], struct slot **slot)
{
    int rc = check(l, p);
    if (rc != ST_OK)
        return rc;
    if (!describe(d, p))
        return ST_EUNSUP;
    key_of(p, key);
    *slot = find(l, key);
    return ST_OK;
}

int cu_lt_tune(struct cu_lt *l, struct gpu_stream *s, const struct cu_lin *p)
{
    uint32_t key[CU_LT_FIELDS];
    struct product d;
    struct slot *slot;
    int rc = look_up(l, p, &d, key, &slot);
    if (rc != ST_OK)
        return rc;
    return slot->ready && slot->timed ? ST_OK : settle(l, s, &d, p, key, slot);
}

int cu_lt_run(struct cu_lt *l, struct gpu_stream *s, const struct cu_lin *p)
{
    uint32_t key[CU_LT_FIELDS];
    struct product d;
    cublasLtMatmulHeuristicResult_t other;
    struct slot *slot;
    int rc = look_up(l, p, &d, key, &slot);
    if (rc != ST_OK)
        return rc;
    if (!slot->ready)
        rc = settle(l, NULL, &d, p, key, slot);
    if (rc != ST_OK)
        return rc;
    const cublasLtMatmulAlgo_t *algo = &slot->algo;
    /* The bucket's algorithm nearly always takes other row counts; where not, the first proposal for this one. */
    if (slot->c.key[CU_LT_M] != p->m &&
        (cublasLtMatmulAlgoCheck(l->handle, &d.desc, &d.w, &d.x, &d.y, &d.y, algo, &other) != CUBLAS_STATUS_SUCCESS ||
         other.workspaceSize > WORKSPACE)) {
        if (propose(l, &d, 1, &other) == 0)
            return ST_EUNSUP;
        algo = &other.algo;
    }
    return multiply(l, s, &d, algo, p);
}
