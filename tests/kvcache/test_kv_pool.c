/* Goal: the rules of the pool and of the index one by one, the host tier apart (test_kv_prefix_host.c), and creation under
 * injected allocation failures. */
#include "kv_prefix.h"
#include "kv_seq.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void sound(const struct kv_prefix *x)
{
    const char *why = "";
    if (!kv_prefix_check(x, &why))
        fail_msg("%s", why);
}

static struct kv_id id_of(int32_t t, const struct kv_id *parent)
{
    struct kv_id id, root;
    kv_id_root(&root, "m", 1, "s", 1);
    kv_id_next(&id, parent ? parent : &root, &t, 1);
    return id;
}

static void ids_differ_by_model_salt_parent_and_tokens(void **state)
{
    (void)state;
    struct kv_id a, b, c, d;
    int32_t t[16] = {1, 2, 3};
    kv_id_root(&a, "ab", 2, "c", 1);
    kv_id_root(&b, "a", 1, "bc", 2);
    assert_false(kv_id_eq(&a, &b));
    kv_id_next(&c, &a, t, 16);
    kv_id_next(&d, &b, t, 16);
    assert_false(kv_id_eq(&c, &d));
    t[15] = 1;
    kv_id_next(&d, &a, t, 16);
    assert_false(kv_id_eq(&c, &d));
    t[15] = 0;
    kv_id_next(&d, &a, t, 16);
    assert_true(kv_id_eq(&c, &d));
    kv_id_next(&d, &d, t, 16); /* in place */
    assert_false(kv_id_eq(&c, &d));
}

static void unindexed_block_goes_free_and_indexed_one_cached(void **state)
{
    (void)state;
    struct kv_prefix *x;
    assert_int_equal(kv_prefix_create(&x, 2, 0, NULL), ST_OK);
    struct kv_pool *p = kv_prefix_pool(x);
    uint32_t b[2];
    assert_int_equal(kv_prefix_alloc(x, 2, b), ST_OK);
    struct kv_id id = id_of(1, NULL);
    kv_prefix_insert(x, &id, KV_NONE, b[0]);
    assert_int_equal(kv_pool_state(p, b[0]), KV_PINNED_INDEXED);
    kv_prefix_pin(x, b[0]);
    kv_prefix_unpin(x, b[0]);
    kv_prefix_unpin(x, b[0]);
    kv_prefix_unpin(x, b[1]);
    assert_int_equal(kv_pool_state(p, b[0]), KV_CACHED);
    assert_int_equal(kv_pool_state(p, b[1]), KV_FREE);
    assert_int_equal(kv_prefix_find(x, &id), b[0]);
    kv_prefix_pin(x, b[0]);
    assert_int_equal(kv_pool_state(p, b[0]), KV_PINNED_INDEXED);
    kv_prefix_unpin(x, b[0]);
    sound(x);
    kv_prefix_destroy(x);
}

static void alloc_is_all_or_nothing(void **state)
{
    (void)state;
    struct kv_prefix *x;
    assert_int_equal(kv_prefix_create(&x, 4, 0, NULL), ST_OK);
    uint32_t b[5] = {0}, c[2];
    assert_int_equal(kv_prefix_alloc(x, 5, b), ST_NOSPACE);
    assert_int_equal(kv_pool_free(kv_prefix_pool(x)), 4);
    assert_int_equal(kv_prefix_alloc(x, 3, b), ST_OK);
    struct kv_id id = id_of(7, NULL);
    kv_prefix_insert(x, &id, KV_NONE, b[0]);
    kv_prefix_unpin(x, b[0]);
    assert_int_equal(kv_prefix_available(x), 2);
    assert_int_equal(kv_prefix_alloc(x, 2, c), ST_OK);
    assert_int_equal(kv_prefix_find(x, &id), KV_NONE);
    sound(x);
    for (int i = 0; i < 2; i++) {
        kv_prefix_unpin(x, c[i]);
        kv_prefix_unpin(x, b[i + 1]);
    }
    kv_prefix_destroy(x);
}

static void leaves_go_before_their_parents(void **state)
{
    (void)state;
    struct kv_prefix *x;
    assert_int_equal(kv_prefix_create(&x, 8, 0, NULL), ST_OK);
    int32_t tokens[16 * 4] = {0};
    uint32_t table[4];
    struct kv_id ids[4];
    struct kv_seq s = {.table = table, .ids = ids, .tokens = tokens, .block_tokens = 16, .cap_blocks = 4};
    kv_id_root(&s.root, "m", 1, "", 0);
    kv_seq_hash(&s, 64);
    assert_int_equal(kv_seq_match(&s, x, 64), 0);
    assert_int_equal(kv_seq_extend(&s, x, 64), ST_OK);
    kv_seq_commit(&s, x, 64);
    kv_seq_release(&s, x, 0, 0);
    for (uint32_t left = 4; left > 0; left--) {
        for (uint32_t i = 0; i < 4; i++)
            assert_int_equal(kv_prefix_find(x, &ids[i]) != KV_NONE, i < left);
        assert_int_equal(kv_prefix_evict(x, 1), 1);
        sound(x);
    }
    assert_int_equal(kv_prefix_evict(x, 1), 0);
    kv_prefix_destroy(x);
}

static void duplicate_keeps_its_own_block_until_release(void **state)
{
    (void)state;
    struct kv_prefix *x;
    assert_int_equal(kv_prefix_create(&x, 8, 0, NULL), ST_OK);
    int32_t tokens[48] = {0};
    uint32_t table[2][3];
    struct kv_id ids[2][3];
    struct kv_seq s[2];
    for (int i = 0; i < 2; i++) {
        s[i] = (struct kv_seq){
            .table = table[i], .ids = ids[i], .tokens = tokens, .block_tokens = 16, .cap_blocks = 3};
        kv_id_root(&s[i].root, "m", 1, "", 0);
        assert_int_equal(kv_seq_extend(&s[i], x, 48), ST_OK);
    }
    kv_seq_commit(&s[0], x, 16);
    kv_seq_commit(&s[1], x, 48);
    uint32_t own = table[1][0];
    assert_int_not_equal(own, table[0][0]);
    assert_int_equal(kv_pool_state(kv_prefix_pool(x), own), KV_PINNED);
    assert_int_equal(kv_prefix_find(x, &ids[1][1]), KV_NONE);
    kv_seq_release(&s[1], x, 0, 0); /* its blocks 1 and 2 are indexed behind the other's block 0 */
    sound(x);
    assert_int_equal(kv_pool_state(kv_prefix_pool(x), own), KV_FREE);
    assert_int_not_equal(kv_prefix_find(x, &ids[1][2]), KV_NONE);
    assert_int_equal(kv_seq_match(&s[1], x, 48), 48);
    assert_int_equal(table[1][0], table[0][0]);
    kv_seq_release(&s[0], x, 0, 0);
    kv_seq_release(&s[1], x, 0, 0);
    sound(x);
    assert_int_equal(kv_prefix_available(x), 8);
    kv_prefix_destroy(x);
}

/* Computes `n` blocks that all start with the token `first`, and lets go of them. */
static void come_and_go(struct kv_prefix *x, int32_t first, uint32_t n, int64_t now_ns, int64_t expiry_ns,
                        struct kv_id *ids)
{
    int32_t tokens[16 * 4] = {first};
    uint32_t table[4];
    struct kv_seq s = {.table = table, .ids = ids, .tokens = tokens, .block_tokens = 16, .cap_blocks = 4};
    kv_id_root(&s.root, "m", 1, "", 0);
    kv_seq_hash(&s, 16 * n);
    kv_seq_match(&s, x, 16 * n);
    assert_int_equal(kv_seq_extend(&s, x, 16 * n), ST_OK);
    kv_seq_commit(&s, x, 16 * n);
    kv_seq_release(&s, x, now_ns, expiry_ns);
    sound(x);
}

static void what_expires_first_goes_first(void **state)
{
    (void)state;
    struct kv_prefix *x;
    struct kv_id ids[3][4];
    assert_int_equal(kv_prefix_create(&x, 8, 0, NULL), ST_OK);
    come_and_go(x, 0, 2, 1, 300, ids[0]);
    come_and_go(x, 1, 2, 2, 100, ids[1]);
    come_and_go(x, 2, 2, 3, 200, ids[2]);
    static const int order[] = {1, 2, 0};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(kv_prefix_evict(x, 1), 1);
        assert_int_equal(kv_prefix_find(x, &ids[order[i]][1]), KV_NONE);
        assert_int_not_equal(kv_prefix_find(x, &ids[order[i]][0]), KV_NONE);
        assert_int_equal(kv_prefix_evict(x, 1), 1);
        assert_int_equal(kv_prefix_find(x, &ids[order[i]][0]), KV_NONE);
        sound(x);
    }
    kv_prefix_destroy(x);
}

static void equal_expiries_go_in_the_order_of_letting_go(void **state)
{
    (void)state;
    struct kv_prefix *x;
    struct kv_id ids[3][4];
    assert_int_equal(kv_prefix_create(&x, 8, 0, NULL), ST_OK);
    for (int i = 0; i < 3; i++)
        come_and_go(x, i, 1, i, 100, ids[i]);
    come_and_go(x, 0, 1, 3, 100, ids[0]); /* used once more */
    static const int order[] = {1, 2, 0};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(kv_prefix_evict(x, 1), 1);
        assert_int_equal(kv_prefix_find(x, &ids[order[i]][0]), KV_NONE);
    }
    kv_prefix_destroy(x);
}

static void letting_go_puts_an_expiry_off_and_never_brings_it_nearer(void **state)
{
    (void)state;
    struct kv_prefix *x;
    struct kv_id ids[2][4];
    assert_int_equal(kv_prefix_create(&x, 8, 0, NULL), ST_OK);
    come_and_go(x, 0, 1, 1, 500, ids[0]);
    come_and_go(x, 0, 1, 2, 10, ids[0]);
    come_and_go(x, 1, 1, 3, 400, ids[1]);
    assert_int_equal(kv_prefix_evict(x, 1), 1);
    assert_int_equal(kv_prefix_find(x, &ids[1][0]), KV_NONE);
    assert_int_not_equal(kv_prefix_find(x, &ids[0][0]), KV_NONE);
    kv_prefix_destroy(x);
}

/* The short sequence ends last and wants its block until 50 only, but a longer one behind it is wanted until 500. */
static void a_prefix_is_wanted_as_long_as_what_stands_on_it(void **state)
{
    (void)state;
    struct kv_prefix *x;
    struct kv_id ids[2][4];
    assert_int_equal(kv_prefix_create(&x, 8, 0, NULL), ST_OK);
    come_and_go(x, 0, 3, 1, 500, ids[0]);
    come_and_go(x, 0, 1, 2, 50, ids[0]);
    come_and_go(x, 1, 1, 3, 400, ids[1]);
    assert_int_equal(kv_prefix_evict(x, 1), 1);
    assert_int_equal(kv_prefix_find(x, &ids[1][0]), KV_NONE);
    assert_int_equal(kv_prefix_evict(x, 3), 3);
    assert_int_equal(kv_prefix_available(x), 8);
    sound(x);
    kv_prefix_destroy(x);
}

static void residence_is_the_mean_time_that_the_evicted_lay_unused(void **state)
{
    (void)state;
    struct kv_prefix *x;
    struct kv_id ids[4];
    assert_int_equal(kv_prefix_create(&x, 8, 0, NULL), ST_OK);
    assert_int_equal(kv_prefix_residence_ns(x), 60000000000);
    come_and_go(x, 0, 1, 1000, 0, ids);
    come_and_go(x, 1, 1, 2000, 0, ids);
    kv_prefix_set_time(x, 5000);
    assert_int_equal(kv_prefix_evict(x, 1), 1);
    assert_int_equal(kv_prefix_residence_ns(x), 4000);
    assert_int_equal(kv_prefix_evict(x, 1), 1);
    assert_int_equal(kv_prefix_residence_ns(x), 3500);
    for (int64_t i = 0; i < 1000; i++) { /* the mean moves: what was long ago no longer counts */
        come_and_go(x, 0, 1, 10000 * i, 0, ids);
        kv_prefix_set_time(x, 10000 * i + 700);
        assert_int_equal(kv_prefix_evict(x, 1), 1);
    }
    assert_in_range(kv_prefix_residence_ns(x), 700, 763);
    assert_int_equal(kv_prefix_evictions(x), 1002);
    kv_prefix_destroy(x);
}

static void without_ids_a_sequence_neither_indexes_nor_matches(void **state)
{
    (void)state;
    struct kv_prefix *x;
    assert_int_equal(kv_prefix_create(&x, 4, 0, NULL), ST_OK);
    int32_t tokens[32] = {0};
    uint32_t table[2], slots[2];
    struct kv_seq s = {.table = table, .tokens = tokens, .block_tokens = 16, .cap_blocks = 2};
    kv_seq_hash(&s, 32);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(kv_seq_match(&s, x, 32), 0);
        assert_int_equal(kv_seq_host_run(&s, x, 32, slots, 2), 0);
        assert_int_equal(kv_seq_extend(&s, x, 32), ST_OK);
        kv_seq_commit(&s, x, 32);
        kv_seq_release(&s, x, 0, 100);
        assert_int_equal(kv_pool_free(kv_prefix_pool(x)), 4);
    }
    kv_prefix_destroy(x);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    for (uint64_t k = 1;; k++) {
        struct kv_prefix *x = NULL;
        struct err e = {0};
        mem_fail_after(k);
        int rc = kv_prefix_create(&x, 100, 50, &e);
        mem_fail_after(0);
        if (rc == ST_OK) {
            kv_prefix_destroy(x);
            /* Itself, two of the pool, three of each heap, the slots and three arrays. */
            assert_int_equal(k - 1, 1 + 2 + 3 * 3 + 4);
            break;
        }
        assert_int_equal(rc, ST_ENOMEM);
        assert_true(e.text[0] != 0);
        assert_int_equal(mem_live(), live);
    }
    struct kv_pool *p = NULL;
    struct kv_prefix *none = NULL;
    assert_int_equal(kv_pool_create(&p, 0, NULL), ST_EINVAL);
    assert_int_equal(kv_prefix_create(&none, 0, 8, NULL), ST_EINVAL);
    assert_int_equal(kv_prefix_create(&none, 8, KV_NONE - 8, NULL), ST_EINVAL);
    assert_int_equal(mem_live(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_differ_by_model_salt_parent_and_tokens),
        cmocka_unit_test(unindexed_block_goes_free_and_indexed_one_cached),
        cmocka_unit_test(alloc_is_all_or_nothing),
        cmocka_unit_test(leaves_go_before_their_parents),
        cmocka_unit_test(what_expires_first_goes_first),
        cmocka_unit_test(equal_expiries_go_in_the_order_of_letting_go),
        cmocka_unit_test(letting_go_puts_an_expiry_off_and_never_brings_it_nearer),
        cmocka_unit_test(a_prefix_is_wanted_as_long_as_what_stands_on_it),
        cmocka_unit_test(residence_is_the_mean_time_that_the_evicted_lay_unused),
        cmocka_unit_test(without_ids_a_sequence_neither_indexes_nor_matches),
        cmocka_unit_test(duplicate_keeps_its_own_block_until_release),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
