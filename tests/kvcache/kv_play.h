/* A small cache under random use, for who listens to its events: sequences that meet and part, of two salts, evictions, copies
 * to a host tier, some of which fail. The world knows what each identity's names must be, computed here from tokens alone. */
#ifndef STATOR_TEST_KV_PLAY_H
#define STATOR_TEST_KV_PLAY_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "hash64.h"
#include "kv_event.h"
#include "kv_prefix_state.h"
#include "kv_seq.h"

enum { PLAY_BT = 4, PLAY_CAP = 12, PLAY_SEQS = 6, PLAY_SAVES = 3, PLAY_SEED = 1337 };

struct play_name {
    struct kv_id id;
    uint64_t content, name, parent_name;
    bool first;
};

struct play {
    struct kv_prefix *x;
    struct kv_events *v;
    uint64_t rng;
    int64_t now;
    struct kv_seq s[PLAY_SEQS];
    uint32_t table[PLAY_SEQS][PLAY_CAP], n[PLAY_SEQS];
    struct kv_id ids[PLAY_SEQS][PLAY_CAP];
    int32_t tokens[PLAY_SEQS][PLAY_CAP * PLAY_BT];
    bool live[PLAY_SEQS];
    struct {
        bool live;
        uint32_t block, slot;
    } saves[PLAY_SAVES];
    struct play_name *names; /* of all identities that ever were; grows */
    uint32_t n_names, cap_names;
};

static uint32_t play_rnd(struct play *w, uint32_t n)
{
    w->rng = w->rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(w->rng >> 33) % n;
}

static const struct play_name *play_find(const struct play *w, const struct kv_id *id)
{
    for (uint32_t i = 0; i < w->n_names; i++)
        if (kv_id_eq(&w->names[i].id, id))
            return &w->names[i];
    return NULL;
}

static void play_learn(struct play *w, uint32_t i)
{
    const struct kv_seq *s = &w->s[i];
    uint64_t parent = 0;
    for (uint32_t b = 0; b < s->n_ids; b++) {
        uint64_t content = hash64(s->tokens + b * PLAY_BT, PLAY_BT * 4, PLAY_SEED + s->salt_tag);
        uint64_t link[2] = {parent, content}, name = b ? hash64(link, 16, PLAY_SEED) : content;
        if (!play_find(w, &s->ids[b])) {
            if (w->n_names == w->cap_names) {
                w->cap_names = w->cap_names ? 2 * w->cap_names : 64;
                w->names = realloc(w->names, w->cap_names * sizeof *w->names);
                assert_non_null(w->names);
            }
            w->names[w->n_names++] = (struct play_name){s->ids[b], content, name, b ? parent : 0, b == 0};
        }
        parent = name;
    }
}

static void play_start(struct play *w, uint32_t i)
{
    struct kv_seq *s = &w->s[i];
    uint32_t salt = play_rnd(w, 4) == 0;
    for (uint32_t b = 0; b < PLAY_CAP; b++) {
        int32_t t = (int32_t)play_rnd(w, 2);
        for (uint32_t k = 0; k < PLAY_BT; k++)
            w->tokens[i][b * PLAY_BT + k] = t;
    }
    *s = (struct kv_seq){.table = w->table[i],
                         .ids = w->ids[i],
                         .tokens = w->tokens[i],
                         .salt_tag = salt ? 0x9e3779b97f4a7c15u : 0,
                         .block_tokens = PLAY_BT,
                         .cap_blocks = PLAY_CAP};
    kv_id_root(&s->root, "m", 1, salt ? "s" : "", salt);
    uint32_t n = 1 + play_rnd(w, PLAY_CAP * PLAY_BT);
    kv_seq_hash(s, n);
    w->n[i] = kv_seq_match(s, w->x, n - 1);
    w->live[i] = true;
}

static void play_grow(struct play *w, uint32_t i)
{
    uint32_t n = w->n[i] + 1 + play_rnd(w, 3 * PLAY_BT);
    if (n > PLAY_CAP * PLAY_BT)
        n = PLAY_CAP * PLAY_BT;
    if (kv_seq_extend(&w->s[i], w->x, n) != ST_OK)
        return;
    kv_seq_commit(&w->s[i], w->x, n);
    w->n[i] = n;
    play_learn(w, i);
}

static void play_release(struct play *w, uint32_t i)
{
    kv_seq_release(&w->s[i], w->x, w->now, w->now + (int64_t)play_rnd(w, 50));
    w->live[i] = false;
}

static void play_save(struct play *w, uint32_t i)
{
    if (w->saves[i].live) {
        kv_prefix_save_end(w->x, w->saves[i].block, w->saves[i].slot, play_rnd(w, 4) != 0);
        w->saves[i].live = false;
        return;
    }
    uint32_t b = kv_prefix_next_unsaved(w->x);
    if (b == KV_NONE || play_rnd(w, 3) == 0)
        b = w->live[0] && w->s[0].n_indexed ? w->table[0][play_rnd(w, w->s[0].n_indexed)] : b;
    if (b == KV_NONE || kv_prefix_saved(w->x, b))
        return;
    w->saves[i].block = b;
    w->saves[i].live = kv_prefix_save_begin(w->x, b, &w->saves[i].slot);
}

static void play_begin(struct play *w, uint64_t seed, uint32_t n_blocks, uint32_t n_host, uint32_t capacity)
{
    *w = (struct play){.rng = seed};
    assert_int_equal(kv_prefix_create(&w->x, n_blocks, n_host, NULL), ST_OK);
    const struct kv_event_options o = {.capacity = capacity, .seed = PLAY_SEED};
    assert_int_equal(kv_events_create(&w->v, kv_prefix_nodes(w->x), &o, NULL), ST_OK);
    kv_prefix_tell(w->x, w->v);
}

static void play_step(struct play *w)
{
    uint32_t i = play_rnd(w, PLAY_SEQS), what = play_rnd(w, 16);
    w->now += play_rnd(w, 4);
    kv_prefix_set_time(w->x, w->now);
    if (what < 4)
        play_save(w, play_rnd(w, PLAY_SAVES));
    else if (!w->live[i])
        play_start(w, i);
    else if (what < 11 && w->n[i] < PLAY_CAP * PLAY_BT)
        play_grow(w, i);
    else if (what < 15)
        play_release(w, i);
    else
        kv_prefix_evict(w->x, play_rnd(w, 4));
}

static void play_end(struct play *w)
{
    for (uint32_t i = 0; i < PLAY_SEQS; i++)
        if (w->live[i])
            play_release(w, i);
    for (uint32_t i = 0; i < PLAY_SAVES; i++)
        if (w->saves[i].live)
            play_save(w, i);
    kv_prefix_destroy(w->x);
    kv_events_destroy(w->v);
    free(w->names);
}

/* What the index has of a node; NULL where the number is nobody's. */
static const struct kv_node *play_node(const struct play *w, uint32_t node, bool *block, bool *copy)
{
    const struct kv_node *n = &w->x->nodes[node];
    if (kv_prefix_node(w->x, &n->id) != node)
        return NULL;
    *block = n->block != KV_NONE;
    *copy = kv_prefix_find_host(w->x, &n->id) != KV_NONE;
    return n;
}

#endif
