/* On a host the pool is address space until blocks are written, so a generous default costs nothing at start; half of what is
 * free, at most 4 GiB, leaves room for others on a shared machine. A device is ours: the pool takes all that its share leaves.
 *
 * A pool that cannot hold one full context would accept requests that can never run: then the context shrinks if it was ours
 * to choose, and the start fails if it was the user's. */
#include "sizing.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DEFAULT_KV_MAX_GIB = 4 };

static uint64_t read_number(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return UINT64_MAX;
    char line[256];
    uint64_t v = UINT64_MAX;
    size_t n = strlen(key);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, n) == 0 && sscanf(line + n, "%" SCNu64, &v) == 1)
            break;
    fclose(f);
    return v;
}

static uint64_t read_at(const char *root, const char *file, const char *key)
{
    char path[256];
    int n = snprintf(path, sizeof path, "%s%s", root, file);
    return n > 0 && (size_t)n < sizeof path ? read_number(path, key) : UINT64_MAX;
}

/* Files that the kernel keeps in memory count as used in a group, the model's own among them, but go when memory is wanted. */
static uint64_t group_left(const char *root, uint64_t limit)
{
    static const char *const reclaimable[] = {"inactive_file ", "active_file "};
    uint64_t used = read_at(root, "/sys/fs/cgroup/memory.current", "");
    if (used == UINT64_MAX)
        return UINT64_MAX;
    for (int i = 0; i < 2; i++) {
        uint64_t n = read_at(root, "/sys/fs/cgroup/memory.stat", reclaimable[i]);
        used -= n == UINT64_MAX ? 0 : n < used ? n : used;
    }
    return limit > used ? limit - used : 0;
}

uint64_t sizing_memory_available(const char *root)
{
    uint64_t kib = read_at(root, "/proc/meminfo", "MemAvailable:"), limit = read_at(root, "/sys/fs/cgroup/memory.max", "");
    uint64_t machine = kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
    uint64_t group = limit == UINT64_MAX ? UINT64_MAX : group_left(root, limit);
    return group < machine ? group : machine;
}

static uint64_t blocks_for(const struct sizing_input *in, uint64_t tokens)
{
    return (tokens + in->block_tokens - 1) / in->block_tokens;
}

/* What the host has free once the weights are there. */
static uint64_t host_rest(const struct sizing_input *in)
{
    return in->memory_available > in->weight_bytes ? in->memory_available - in->weight_bytes : 0;
}

static uint64_t default_kv_bytes(const struct sizing_input *in)
{
    if (in->device)
        return in->memory_available;
    uint64_t half = host_rest(in) / 2, max = (uint64_t)DEFAULT_KV_MAX_GIB << 30;
    return half < max ? half : max;
}

int sizing_choose(struct sizing *out, const struct sizing_input *in, struct err *e)
{
    if (!in->device && in->kv_bytes_asked > host_rest(in)) /* granted now, it would end the process when the pages are used */
        return err_set(e, ST_ENOMEM, "--kv-bytes: %" PRIu64 " bytes, of which the host has %" PRIu64 " free beside the weights",
                       in->kv_bytes_asked, host_rest(in));
    uint64_t kv = in->kv_bytes_asked ? in->kv_bytes_asked : default_kv_bytes(in);
    uint64_t n = kv / in->block_bytes;
    bool ours = in->device && !in->kv_bytes_asked;
    const char *kv_why = in->kv_bytes_asked ? "--kv-bytes"
                         : in->device       ? "what --gpu-memory-utilization leaves"
                                            : "half of the free memory, at most 4 GiB";
    /* More blocks than every sequence at full length could use only help to keep prefixes: twice that is plenty. */
    uint64_t context = in->context_asked ? in->context_asked : in->context_max, most;
    if (!in->kv_bytes_asked &&
        !__builtin_mul_overflow(blocks_for(in, context), in->max_num_seqs * 2, &most) && n > most)
        n = most;
    if (n > UINT32_MAX / in->block_tokens)
        n = UINT32_MAX / in->block_tokens;
    if (n == 0)
        return err_set(e, ST_ENOMEM, "%s: %" PRIu64 " bytes hold no KV block (%" PRIu64 " bytes each)%s",
                       ours ? "--gpu-memory-utilization" : "--kv-bytes", kv, in->block_bytes,
                       ours ? ": raise it, or lower --max-num-batched-tokens or --max-num-seqs" : "");
    if (context > in->context_max)
        return err_set(e, ST_EINVAL, "--context-length: %" PRIu64 " is above the model's %" PRIu64, context,
                       in->context_max);
    const char *context_why = in->context_asked ? "--context-length" : "the model's own";
    if (blocks_for(in, context) > n) {
        if (in->context_asked)
            return err_set(e, ST_ENOMEM,
                           "--context-length: %" PRIu64 " tokens need %" PRIu64
                           " KV blocks, memory holds %" PRIu64 ": lower it or raise --kv-bytes",
                           context, blocks_for(in, context), n);
        context = n * in->block_tokens;
        context_why = "what the KV cache holds";
    }
    out->context_length = (uint32_t)context;
    out->n_blocks = (uint32_t)n;
    out->kv_bytes = n * in->block_bytes;
    snprintf(out->why, sizeof out->why,
             "context length %" PRIu64 " (%s), KV cache %" PRIu64 " MiB = %" PRIu64 " blocks of %" PRIu64
             " tokens (%s)",
             context, context_why, out->kv_bytes >> 20, n, in->block_tokens, kv_why);
    return ST_OK;
}

/* All of it is taken at the start, so that a promise which the machine cannot keep is found there. */
int sizing_host_blocks(uint32_t *out, uint64_t bytes, uint64_t block_bytes, uint64_t memory_available, struct err *e)
{
    uint64_t n = bytes / block_bytes;
    if (bytes && n == 0)
        return err_set(e, ST_EINVAL, "--host-kv-bytes: %" PRIu64 " bytes hold no KV block (%" PRIu64 " bytes each)", bytes,
                       block_bytes);
    if (bytes > memory_available)
        return err_set(e, ST_ENOMEM, "--host-kv-bytes: %" PRIu64 " bytes, of which the host has %" PRIu64 " free", bytes,
                       memory_available);
    *out = n < UINT32_MAX - 1 ? (uint32_t)n : UINT32_MAX - 1;
    return ST_OK;
}
