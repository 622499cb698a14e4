/* Goal: under any order of operations, sequences read what they wrote, prefixes are found exactly when they should be, what goes
 * is what should go, and no block and no host slot is lost. Method: random operations on the real thing and on a naive twin side
 * by side (kv_twin.h).
 *
 * `content[b]` stands for the bytes of block b, `host[s]` for those of slot s: a step "writes" the hash of the whole prefix up to
 * each block, a copy moves it when it *ends*, and each copy that should be there is looked at after each operation. A stale or
 * foreign block, or one let go while a copy was under way, shows at once. A seed as argument, or in STATOR_TEST_SEED, replays. */
#include "kv_twin.h"
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t rng, seed_given;
static uint32_t rnd(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

static bool extend(struct world *w, uint32_t i, uint32_t n_tokens)
{
    struct counts c = twin_counts(w);
    uint32_t want = kv_seq_blocks_for(n_tokens, BT),
             more = want > w->t[i].n_blocks ? want - w->t[i].n_blocks : 0;
    int rc = kv_seq_extend(&w->s[i], w->x, n_tokens);
    assert_int_equal(rc, more <= N_BLOCKS - c.pinned ? ST_OK : ST_NOSPACE);
    if (rc != ST_OK)
        return false;
    for (uint32_t n_free = N_BLOCKS - c.pinned - c.cached; n_free < more; n_free++)
        twin_evict(w);
    w->t[i].n_blocks += more;
    return true;
}

static void commit(struct world *w, uint32_t i, uint32_t n)
{
    kv_seq_commit(&w->s[i], w->x, n);
    for (uint32_t b = w->n_tokens[i] / BT; b < n / BT && !w->t[i].apart; b++) {
        if (twin_find_dev(w, w->tokens[i], b + 1)) {
            w->t[i].apart = true;
        } else {
            twin_add(w, i, b + 1);
            w->t[i].n_entries++;
        }
    }
    w->n_tokens[i] = n;
}

/* What follows the matched prefix and is in the host tier comes back by copying. */
static void load_begin(struct world *w, uint32_t i, uint32_t max_tokens)
{
    struct load *l = NULL;
    for (int k = 0; k < N_COPIES; k++)
        if (!w->loads[k].live)
            l = &w->loads[k];
    uint32_t at = w->t[i].n_blocks, n = 0, cap = 1 + rnd(CAP), slots[CAP];
    for (const struct twin_entry *e; n < cap && (at + n + 1) * BT <= max_tokens; n++)
        if (!(e = twin_find(w, w->tokens[i], at + n + 1)) || e->host != COPY)
            break;
    assert_int_equal(kv_seq_host_run(&w->s[i], w->x, max_tokens, slots, cap), n);
    if (n == 0 || !l || !extend(w, i, (at + n) * BT))
        return;
    *l = (struct load){.live = true, .seq = i, .n = n};
    for (uint32_t b = 0; b < n; b++) {
        l->blocks[b] = w->s[i].table[at + b];
        l->slots[b] = slots[b];
        l->of[b] = twin_find(w, w->tokens[i], at + b + 1);
        l->of[b]->host_pins++;
        kv_prefix_host_pin(w->x, slots[b]);
        kv_prefix_pin(w->x, l->blocks[b]);
    }
    w->loading[i] = l;
}

static void load_end(struct world *w, struct load *l)
{
    for (uint32_t b = 0; b < l->n; b++) {
        assert_int_equal(w->host[l->slots[b]], l->of[b]->hash);
        w->content[l->blocks[b]] = w->host[l->slots[b]];
        kv_prefix_host_unpin(w->x, l->slots[b]);
        kv_prefix_unpin(w->x, l->blocks[b]);
        l->of[b]->host_pins--;
    }
    l->live = false;
    if (l->cancelled)
        return;
    w->loading[l->seq] = NULL;
    commit(w, l->seq, w->n_tokens[l->seq] + l->n * BT);
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
        struct twin_entry *e = twin_find_dev(w, w->tokens[i], want + 1);
        if (!e)
            break;
        e->holders++;
    }
    assert_int_equal(got, want * BT);
    w->n_tokens[i] = got;
    w->t[i] = (struct twin_seq){.live = true, .n_entries = want, .n_blocks = want};
    load_begin(w, i, n_prompt - 1);
}

static void op_grow(struct world *w, uint32_t i)
{
    uint32_t n = w->n_tokens[i] + 1 + rnd(3 * BT);
    if (n > CAP * BT)
        n = CAP * BT;
    if (!extend(w, i, n))
        return;
    compare(w);
    for (uint32_t b = w->n_tokens[i] / BT; b < n / BT; b++) /* the step writes */
        w->content[w->s[i].table[b]] = prefix_hash(w->tokens[i], (b + 1) * BT);
    commit(w, i, n);
}

static void op_release(struct world *w, uint32_t i)
{
    int64_t expiry = w->hints == 0   ? 0
                     : w->hints == 1 ? w->now
                                     : w->now - 20 + (int64_t)rnd(rnd(4) ? 60 : 400);
    kv_seq_release(&w->s[i], w->x, w->now, expiry);
    for (uint32_t b = w->t[i].n_entries; b < w->n_tokens[i] / BT; b++) {
        struct twin_entry *e = twin_find_dev(w, w->tokens[i], b + 1);
        if (e)
            e->holders++;
        else
            twin_add(w, i, b + 1);
    }
    for (uint32_t b = w->n_tokens[i] / BT; b > 0; b--) {
        struct twin_entry *e = twin_find_dev(w, w->tokens[i], b);
        e->holders--;
        e->stamp = ++w->stamp;
        e->used = w->now;
        if (e->expiry < expiry)
            e->expiry = expiry;
        expiry = e->expiry;
    }
    w->t[i].live = false;
    if (w->loading[i])
        w->loading[i]->cancelled = true;
    w->loading[i] = NULL;
}

/* Some block that is indexed and not saved: mostly the one that a sweep would take. */
static struct twin_entry *some_unsaved(struct world *w)
{
    struct twin_entry *e = twin_next_unsaved(w);
    for (uint32_t tries = 0; tries < 20 && (!e || rnd(3) == 0); tries++) {
        struct twin_entry *other = &w->twin[rnd(TWIN_MAX)];
        if (other->dev && other->host == ABSENT)
            e = other;
    }
    return e;
}

static void op_save(struct world *w)
{
    struct save *s = &w->saves[rnd(N_COPIES)];
    struct twin_entry *e = some_unsaved(w), *least = twin_host_least(w);
    if (s->live || !e || !w->n_host)
        return;
    bool must_go = twin_counts(w).host_free == 0;
    bool can = !must_go || (least && (e->holders || precedes(least, e)));
    s->of = e;
    s->block = kv_prefix_find(w->x, &e->id);
    assert_int_equal(kv_prefix_save_begin(w->x, s->block, &s->slot), can);
    if (!can)
        return;
    if (must_go)
        least->host = ABSENT;
    s->live = true;
    e->host = LANDING;
    for (uint32_t n = 1; n <= e->n; n++)
        twin_find_dev(w, e->tokens, n)->holders++;
    w->host[s->slot] = 0; /* half written: whoever finds it before the end reads nonsense */
}

static void save_end(struct world *w, struct save *s)
{
    bool ok = rnd(4) != 0;
    w->host[s->slot] = ok ? w->content[s->block] : 0;
    kv_prefix_save_end(w->x, s->block, s->slot, ok);
    s->of->host = ok ? COPY : ABSENT;
    for (uint32_t n = 1; n <= s->of->n; n++)
        twin_find_dev(w, s->of->tokens, n)->holders--;
    s->live = false;
}

static void op_lone(struct world *w, struct lone *p)
{
    struct twin_entry *least = twin_host_least(w);
    if (p->live) {
        kv_prefix_host_give(w->x, p->slot);
        p->live = false;
        return;
    }
    bool must_go = twin_counts(w).host_free == 0;
    int rc = kv_prefix_host_take(w->x, &p->slot);
    assert_int_equal(rc, must_go && !least ? ST_NOSPACE : ST_OK);
    if (rc != ST_OK)
        return;
    if (must_go)
        least->host = ABSENT;
    p->live = true;
    p->tag = w->host[p->slot] = rng;
}

static void op_tier(struct world *w)
{
    uint32_t k = rnd(N_COPIES), what = rnd(8);
    if (what < 4)
        op_save(w);
    else if (what < 6 && w->saves[k].live)
        save_end(w, &w->saves[k]);
    else if (what == 6 && w->loads[k].live)
        load_end(w, &w->loads[k]);
    else if (what == 7 && rnd(4) == 0)
        op_lone(w, &w->lone[k]);
}

/* Nobody runs, no copy is under way: nothing is held. */
static void end(struct world *w)
{
    for (uint32_t i = 0; i < N_SEQ; i++)
        if (w->t[i].live)
            op_release(w, i);
    compare(w);
    for (uint32_t i = 0; i < N_COPIES; i++) {
        if (w->saves[i].live)
            save_end(w, &w->saves[i]);
        if (w->loads[i].live)
            load_end(w, &w->loads[i]);
        if (w->lone[i].live)
            op_lone(w, &w->lone[i]);
    }
    compare(w);
    assert_int_equal(kv_prefix_available(w->x), N_BLOCKS);
    assert_int_equal(kv_prefix_host_free(w->x) + kv_prefix_host_cached(w->x), w->n_host);
}

static void run(uint64_t seed)
{
    static const uint32_t n_host[] = {0, 5, 12, MAX_HOST};
    struct world *w = mem_zalloc(1, sizeof *w);
    assert_non_null(w);
    rng = seed;
    w->n_host = n_host[seed % 4];
    w->hints = (int)(seed / 4 % 3);
    w->residence = 60 * INT64_C(1000000000);
    assert_int_equal(kv_prefix_create(&w->x, N_BLOCKS, w->n_host, NULL), ST_OK);
    for (int step = 0; step < 2000; step++) {
        uint32_t i = rnd(N_SEQ), what = rnd(16);
        if (rnd(2)) {
            w->now += rnd(4);
            kv_prefix_set_time(w->x, w->now);
        }
        if (rnd(3) == 0)
            op_tier(w);
        else if (!w->t[i].live)
            op_start(w, i);
        else if (what < 11 && !w->loading[i] && w->n_tokens[i] < CAP * BT)
            op_grow(w, i);
        else if (what < 15 && (!w->loading[i] || what == 0))
            op_release(w, i);
        else
            for (uint32_t n = kv_prefix_evict(w->x, rnd(4)); n > 0; n--)
                twin_evict(w);
        compare(w);
    }
    end(w);
    kv_prefix_destroy(w->x);
    mem_free(w);
}

static void random_operations_agree_with_the_twin(void **state)
{
    (void)state;
    uint64_t fresh = (uint64_t)time(NULL), live = mem_live();
    for (uint64_t i = 0; i < (seed_given ? 1 : 48); i++) {
        uint64_t seed = seed_given ? seed_given : i < 24 ? i : fresh * 100 + i;
        print_message("seed %llu\n", (unsigned long long)seed);
        run(seed);
    }
    assert_int_equal(mem_live(), live);
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("STATOR_TEST_SEED");
    seed_given = given ? strtoull(given, NULL, 10) : 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_operations_agree_with_the_twin)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
