/* Goal: under any order of operations, sequences read what they wrote, prefixes are found exactly when they should be, and
 * no block is lost. Method: random operations on the real thing and on a naive twin side by side. The twin keeps identities
 * as whole token prefixes in a flat array with a use stamp each; it evicts by scanning for the oldest unheld one.
 *
 * `content[b]` stands for the bytes of block b: a step "writes" the hash of the whole prefix up to each block, and every
 * sequence checks the content of its whole table at each operation. A stale or foreign block shows at once. */
#include "kv_seq.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { BT = 16, CAP = 10, N_SEQ = 6, N_BLOCKS = 24, TWIN_MAX = 64 };

static uint64_t rng;
static uint32_t rnd(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

struct twin_entry { /* an identity that the index should hold */
    bool used;
    uint32_t n; /* blocks */
    int32_t tokens[CAP * BT];
    uint32_t holders;
    uint64_t stamp;
};

struct twin_seq {
    bool live, apart;
    uint32_t n_entries, n_blocks; /* leading blocks that are entries; blocks held */
};

struct world {
    struct kv_prefix *x;
    struct kv_seq s[N_SEQ];
    int32_t tokens[N_SEQ][CAP * BT];
    uint32_t table[N_SEQ][CAP];
    struct kv_id ids[N_SEQ][CAP];
    uint32_t n_tokens[N_SEQ]; /* committed */
    uint64_t content[N_BLOCKS];
    struct twin_entry twin[TWIN_MAX];
    struct twin_seq t[N_SEQ];
    uint64_t now;
};

static uint64_t prefix_hash(const int32_t *t, uint32_t n)
{
    uint64_t h = 1469598103934665603u;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ (uint64_t)(uint32_t)t[i]) * 1099511628211u;
    return h;
}

static struct twin_entry *twin_find(struct world *w, const int32_t *tokens, uint32_t n)
{
    for (int i = 0; i < TWIN_MAX; i++)
        if (w->twin[i].used && w->twin[i].n == n &&
            memcmp(w->twin[i].tokens, tokens, (size_t)n * BT * sizeof *tokens) == 0)
            return &w->twin[i];
    return NULL;
}

static struct twin_entry *twin_add(struct world *w, const int32_t *tokens, uint32_t n)
{
    for (int i = 0; i < TWIN_MAX; i++)
        if (!w->twin[i].used) {
            w->twin[i] = (struct twin_entry){.used = true, .n = n, .holders = 1};
            memcpy(w->twin[i].tokens, tokens, (size_t)n * BT * sizeof *tokens);
            return &w->twin[i];
        }
    fail_msg("twin full");
    return NULL;
}

static void twin_counts(struct world *w, uint32_t *pinned, uint32_t *cached)
{
    *pinned = *cached = 0;
    for (int i = 0; i < TWIN_MAX; i++)
        if (w->twin[i].used) {
            if (w->twin[i].holders)
                ++*pinned;
            else
                ++*cached;
        }
    for (int i = 0; i < N_SEQ; i++)
        if (w->t[i].live)
            *pinned += w->t[i].n_blocks - w->t[i].n_entries;
}

static void twin_evict(struct world *w)
{
    struct twin_entry *old = NULL;
    for (int i = 0; i < TWIN_MAX; i++)
        if (w->twin[i].used && !w->twin[i].holders && (!old || w->twin[i].stamp < old->stamp))
            old = &w->twin[i];
    assert_non_null(old);
    old->used = false;
}

static void compare(struct world *w)
{
    const char *why = "";
    if (!kv_prefix_check(w->x, &why))
        fail_msg("%s", why);
    uint32_t pinned, cached;
    twin_counts(w, &pinned, &cached);
    assert_int_equal(kv_pool_cached(kv_prefix_pool(w->x)), cached);
    assert_int_equal(kv_pool_free(kv_prefix_pool(w->x)), N_BLOCKS - pinned - cached);
    for (int i = 0; i < N_SEQ; i++) {
        if (!w->t[i].live)
            continue;
        assert_int_equal(w->s[i].n_blocks, w->t[i].n_blocks);
        assert_int_equal(w->s[i].n_indexed, w->t[i].n_entries);
        for (uint32_t b = 0; b < w->n_tokens[i] / BT; b++)
            assert_int_equal(w->content[w->s[i].table[b]], prefix_hash(w->tokens[i], (b + 1) * BT));
    }
}

static void op_start(struct world *w, uint32_t i)
{
    struct kv_seq *s = &w->s[i];
    /* Few first choices, so that prefixes meet; later tokens alike within a block. */
    for (uint32_t b = 0; b < CAP; b++) {
        int32_t t = (int32_t)rnd(2);
        for (uint32_t k = 0; k < BT; k++)
            w->tokens[i][b * BT + k] = t;
    }
    *s = (struct kv_seq){.table = w->table[i],
                         .ids = w->ids[i],
                         .tokens = w->tokens[i],
                         .block_tokens = BT,
                         .cap_blocks = CAP};
    kv_id_root(&s->root, "model", 5, "", 0);
    uint32_t n_prompt = 1 + rnd(CAP * BT);
    kv_seq_hash(s, n_prompt);
    uint32_t got = kv_seq_match(s, w->x, n_prompt - 1), want = 0;
    for (; (want + 1) * BT <= n_prompt - 1; want++) {
        struct twin_entry *e = twin_find(w, w->tokens[i], want + 1);
        if (!e)
            break;
        e->holders++;
    }
    assert_int_equal(got, want * BT);
    w->n_tokens[i] = got;
    w->t[i] = (struct twin_seq){.live = true, .n_entries = want, .n_blocks = want};
}

static void op_grow(struct world *w, uint32_t i)
{
    uint32_t n = w->n_tokens[i] + 1 + rnd(3 * BT);
    if (n > CAP * BT)
        n = CAP * BT;
    uint32_t more = kv_seq_blocks_for(n, BT) - w->t[i].n_blocks, pinned, cached;
    twin_counts(w, &pinned, &cached);
    int rc = kv_seq_extend(&w->s[i], w->x, n);
    assert_int_equal(rc, more <= N_BLOCKS - pinned ? ST_OK : ST_NOSPACE);
    if (rc != ST_OK)
        return;
    for (uint32_t n_free = N_BLOCKS - pinned - cached; n_free < more; n_free++)
        twin_evict(w);
    w->t[i].n_blocks += more;
    compare(w);
    for (uint32_t b = w->n_tokens[i] / BT; b < n / BT; b++) /* the step writes */
        w->content[w->s[i].table[b]] = prefix_hash(w->tokens[i], (b + 1) * BT);
    kv_seq_commit(&w->s[i], w->x, n);
    for (uint32_t b = w->n_tokens[i] / BT; b < n / BT && !w->t[i].apart; b++) {
        if (twin_find(w, w->tokens[i], b + 1)) {
            w->t[i].apart = true;
        } else {
            twin_add(w, w->tokens[i], b + 1);
            w->t[i].n_entries++;
        }
    }
    w->n_tokens[i] = n;
}

static void op_release(struct world *w, uint32_t i)
{
    kv_seq_release(&w->s[i], w->x, 0, 0);
    for (uint32_t b = w->t[i].n_entries; b < w->n_tokens[i] / BT; b++) {
        struct twin_entry *e = twin_find(w, w->tokens[i], b + 1);
        if (e)
            e->holders++;
        else
            twin_add(w, w->tokens[i], b + 1);
    }
    for (uint32_t b = w->n_tokens[i] / BT; b > 0; b--) {
        struct twin_entry *e = twin_find(w, w->tokens[i], b);
        e->holders--;
        e->stamp = ++w->now;
    }
    w->t[i].live = false;
}

static void run(uint64_t seed)
{
    struct world *w = mem_zalloc(1, sizeof *w);
    assert_non_null(w);
    rng = seed;
    assert_int_equal(kv_prefix_create(&w->x, N_BLOCKS, 0, NULL), ST_OK);
    for (int step = 0; step < 1500; step++) {
        uint32_t i = rnd(N_SEQ), what = rnd(16);
        if (!w->t[i].live)
            op_start(w, i);
        else if (what < 11 && w->n_tokens[i] < CAP * BT)
            op_grow(w, i);
        else if (what < 15)
            op_release(w, i);
        else
            for (uint32_t n = kv_prefix_evict(w->x, rnd(4)); n > 0; n--)
                twin_evict(w);
        compare(w);
    }
    for (uint32_t i = 0; i < N_SEQ; i++)
        if (w->t[i].live)
            op_release(w, i);
    compare(w);
    assert_int_equal(kv_prefix_available(w->x), N_BLOCKS);
    kv_prefix_destroy(w->x);
    mem_free(w);
}

static void random_operations_agree_with_the_twin(void **state)
{
    (void)state;
    uint64_t fresh = (uint64_t)time(NULL);
    for (uint64_t i = 0; i < 40; i++) {
        uint64_t seed = i < 20 ? i : fresh * 100 + i;
        print_message("seed %llu\n", (unsigned long long)seed);
        run(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_operations_agree_with_the_twin)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
