/* Goal: the rules of the host tier one by one. test_kv_seq.c holds the same under random operations, with contents. */
#include "kv_seq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { BT = 16, CAP = 4 };

struct chain { /* a sequence whose blocks all belong to it alone */
    struct kv_seq s;
    int32_t tokens[CAP * BT];
    uint32_t table[CAP];
    struct kv_id ids[CAP];
};

static void sound(const struct kv_prefix *x)
{
    const char *why = "";
    if (!kv_prefix_check(x, &why))
        fail_msg("%s", why);
}

static struct kv_prefix *tier(uint32_t n_blocks, uint32_t n_host)
{
    struct kv_prefix *x = NULL;
    assert_int_equal(kv_prefix_create(&x, n_blocks, n_host, NULL), ST_OK);
    return x;
}

/* Matches what there is and computes the rest of `n` blocks. */
static void come(struct chain *c, struct kv_prefix *x, int32_t first, uint32_t n)
{
    *c = (struct chain){.tokens = {first}};
    c->s = (struct kv_seq){
        .table = c->table, .ids = c->ids, .tokens = c->tokens, .block_tokens = BT, .cap_blocks = CAP};
    kv_id_root(&c->s.root, "m", 1, "", 0);
    kv_seq_hash(&c->s, n * BT);
    kv_seq_match(&c->s, x, n * BT);
    assert_int_equal(kv_seq_extend(&c->s, x, n * BT), ST_OK);
    kv_seq_commit(&c->s, x, n * BT);
}

static void go(struct chain *c, struct kv_prefix *x, int64_t expiry_ns)
{
    kv_seq_release(&c->s, x, 0, expiry_ns);
    sound(x);
}

static bool save(struct kv_prefix *x, const struct kv_id *id)
{
    uint32_t block = kv_prefix_find(x, id), slot;
    if (!kv_prefix_save_begin(x, block, &slot))
        return false;
    sound(x);
    kv_prefix_save_end(x, block, slot, true);
    sound(x);
    assert_int_equal(kv_prefix_find_host(x, id), slot);
    return true;
}

static void a_copy_is_found_from_the_end_of_its_save_on(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(4, 4);
    struct chain c;
    uint32_t slot;
    come(&c, x, 0, 1);
    assert_false(kv_prefix_saved(x, c.table[0]));
    assert_true(kv_prefix_save_begin(x, c.table[0], &slot));
    assert_true(kv_prefix_saved(x, c.table[0])); /* on its way: nobody begins a second one */
    assert_int_equal(kv_prefix_find_host(x, &c.ids[0]), KV_NONE);
    kv_prefix_save_end(x, c.table[0], slot, true);
    assert_int_equal(kv_prefix_find_host(x, &c.ids[0]), slot);
    go(&c, x, 0);
    assert_int_equal(kv_prefix_clean(x), 1);
    kv_prefix_destroy(x);
}

static void a_path_is_unsaved_up_to_what_is_saved_or_in_use(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(4, 4);
    struct chain c, user;
    come(&c, x, 0, 3);
    go(&c, x, 0);
    uint32_t leaf = kv_prefix_next_unsaved(x);
    assert_int_equal(leaf, kv_prefix_find(x, &c.ids[2]));
    assert_int_equal(kv_prefix_unsaved_parent(x, leaf), kv_prefix_find(x, &c.ids[1]));
    assert_int_equal(kv_prefix_unsaved_parent(x, kv_prefix_find(x, &c.ids[0])), KV_NONE);
    assert_true(save(x, &c.ids[0]));
    assert_int_equal(kv_prefix_unsaved_parent(x, kv_prefix_find(x, &c.ids[1])), KV_NONE);
    come(&user, x, 0, 2);
    assert_int_equal(kv_prefix_unsaved_parent(x, leaf), KV_NONE);
    go(&user, x, 0);
    kv_prefix_destroy(x);
}

static void a_failed_save_leaves_nothing_behind(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(4, 1);
    struct chain c;
    uint32_t slot;
    come(&c, x, 0, 1);
    uint32_t block = c.table[0];
    go(&c, x, 0);
    assert_int_equal(kv_prefix_next_unsaved(x), block);
    assert_true(kv_prefix_save_begin(x, block, &slot));
    assert_int_equal(kv_prefix_next_unsaved(x), KV_NONE);
    kv_prefix_save_end(x, block, slot, false);
    sound(x);
    assert_false(kv_prefix_saved(x, block));
    assert_int_equal(kv_prefix_next_unsaved(x), block);
    assert_int_equal(kv_prefix_host_free(x), 1);
    kv_prefix_destroy(x);
}

static void a_save_holds_its_block_and_the_path_to_it(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(6, 4);
    struct chain c;
    uint32_t slot, more[6];
    come(&c, x, 0, 4);
    uint32_t block = c.table[2];
    assert_true(kv_prefix_save_begin(x, block, &slot));
    go(&c, x, 0); /* the sequence ends before the copy does */
    assert_int_equal(kv_prefix_available(x), 3);
    assert_int_equal(kv_prefix_alloc(x, 4, more), ST_NOSPACE);
    assert_int_equal(kv_prefix_alloc(x, 3, more), ST_OK);
    assert_int_equal(kv_prefix_find(x, &c.ids[3]), KV_NONE);
    assert_int_equal(kv_prefix_find(x, &c.ids[2]), block);
    kv_prefix_save_end(x, block, slot, true);
    sound(x);
    assert_int_equal(kv_prefix_available(x), 3);
    for (int i = 0; i < 3; i++)
        kv_prefix_unpin(x, more[i]);
    kv_prefix_destroy(x);
}

static void what_left_the_device_comes_back_from_its_copies(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(4, 4);
    struct chain c;
    uint32_t slots[CAP];
    come(&c, x, 0, 4);
    go(&c, x, 0);
    for (int i = 0; i < 3; i++)
        assert_true(save(x, &c.ids[i]));
    assert_int_equal(kv_prefix_clean(x), 3);
    assert_int_equal(kv_prefix_evict(x, 3), 3);
    sound(x);
    assert_int_equal(kv_seq_match(&c.s, x, 4 * BT), BT);
    assert_int_equal(kv_seq_host_run(&c.s, x, 4 * BT, slots, CAP), 2); /* the fourth was never saved */
    assert_int_equal(slots[0], kv_prefix_find_host(x, &c.ids[1]));
    assert_int_equal(slots[1], kv_prefix_find_host(x, &c.ids[2]));
    assert_int_equal(kv_seq_host_run(&c.s, x, 4 * BT, slots, 1), 1);
    assert_int_equal(kv_seq_host_run(&c.s, x, 3 * BT - 1, slots, CAP), 1);
    assert_int_equal(kv_seq_extend(&c.s, x, 3 * BT), ST_OK);
    kv_seq_commit(&c.s, x, 3 * BT); /* as if copied */
    sound(x);
    assert_true(kv_prefix_saved(x, c.table[2])); /* the copy stays: going again costs nothing */
    go(&c, x, 0);
    assert_int_equal(kv_prefix_clean(x), 3);
    kv_prefix_destroy(x);
}

static void the_copy_that_expires_first_makes_room(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(8, 2);
    struct chain c[3];
    static const int64_t expiry[] = {300, 100, 200};
    for (int i = 0; i < 3; i++) {
        come(&c[i], x, i, 1);
        go(&c[i], x, expiry[i]);
    }
    assert_true(save(x, &c[0].ids[0]));
    assert_true(save(x, &c[1].ids[0]));
    assert_true(save(x, &c[2].ids[0]));
    assert_int_equal(kv_prefix_find_host(x, &c[1].ids[0]), KV_NONE);
    assert_int_equal(kv_prefix_next_unsaved(x), kv_prefix_find(x, &c[1].ids[0])); /* unsaved again */
    assert_false(save(x, &c[1].ids[0])); /* nothing there is wanted for less long */
    come(&c[2], x, 2, 1);
    go(&c[2], x, 400); /* used again: the copy is wanted longer, too */
    come(&c[1], x, 1, 1);
    go(&c[1], x, 350);
    assert_true(save(x, &c[1].ids[0]));
    assert_int_equal(kv_prefix_find_host(x, &c[0].ids[0]), KV_NONE);
    kv_prefix_destroy(x);
}

static void saving_comes_to_rest_in_a_tier_of_any_size(void **state)
{
    (void)state;
    for (uint32_t n_host = 0; n_host < 12; n_host++) {
        struct kv_prefix *x = tier(8, n_host);
        struct chain c;
        for (int i = 0; i < 8; i++) {
            come(&c, x, i, 1);
            go(&c, x, i * 5 % 8);
        }
        uint32_t saves = 0, slot;
        for (uint32_t b; (b = kv_prefix_next_unsaved(x)) != KV_NONE && kv_prefix_save_begin(x, b, &slot);) {
            kv_prefix_save_end(x, b, slot, true);
            assert_true(++saves <= 8);
        }
        sound(x);
        assert_int_equal(kv_prefix_clean(x), n_host < 8 ? n_host : 8);
        assert_int_equal(kv_prefix_host_total(x), n_host);
        kv_prefix_destroy(x);
    }
}

static void a_copy_being_read_stays(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(4, 1);
    struct chain a, b;
    uint32_t mine;
    come(&a, x, 0, 1);
    go(&a, x, 1);
    come(&b, x, 1, 1);
    go(&b, x, 2);
    assert_true(save(x, &a.ids[0]));
    uint32_t slot = kv_prefix_find_host(x, &a.ids[0]);
    kv_prefix_host_pin(x, slot);
    kv_prefix_host_pin(x, slot);
    kv_prefix_host_unpin(x, slot);
    assert_false(save(x, &b.ids[0]));
    assert_int_equal(kv_prefix_host_take(x, &mine), ST_NOSPACE);
    assert_int_equal(kv_prefix_find_host(x, &a.ids[0]), slot);
    kv_prefix_host_unpin(x, slot);
    assert_true(save(x, &b.ids[0]));
    assert_int_equal(kv_prefix_find_host(x, &a.ids[0]), KV_NONE);
    kv_prefix_destroy(x);
}

static void a_private_slot_is_nobodys_copy_and_is_never_taken(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(4, 2);
    struct chain c;
    uint32_t mine[3];
    come(&c, x, 0, 1);
    go(&c, x, 1);
    assert_true(save(x, &c.ids[0]));
    assert_int_equal(kv_prefix_host_take(x, &mine[0]), ST_OK);
    assert_int_equal(kv_prefix_host_cached(x), 1);
    assert_int_equal(kv_prefix_host_take(x, &mine[1]), ST_OK); /* a copy is dropped for it */
    assert_int_equal(kv_prefix_find_host(x, &c.ids[0]), KV_NONE);
    assert_int_equal(kv_prefix_host_take(x, &mine[2]), ST_NOSPACE);
    assert_false(save(x, &c.ids[0]));
    sound(x);
    kv_prefix_host_pin(x, mine[0]); /* a load reads it */
    sound(x);
    kv_prefix_host_unpin(x, mine[0]);
    kv_prefix_host_give(x, mine[0]);
    assert_true(save(x, &c.ids[0]));
    kv_prefix_host_give(x, mine[1]);
    assert_int_equal(kv_prefix_host_free(x), 1);
    sound(x);
    kv_prefix_destroy(x);
}

static void a_copy_without_its_parents_waits_for_them(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(4, 4);
    struct chain c;
    uint32_t slots[CAP];
    come(&c, x, 0, 3);
    go(&c, x, 1);
    assert_true(save(x, &c.ids[2]));
    assert_int_equal(kv_prefix_evict(x, 3), 3);
    assert_int_equal(kv_seq_match(&c.s, x, 3 * BT), 0);
    assert_int_equal(kv_seq_host_run(&c.s, x, 3 * BT, slots, CAP), 0);
    come(&c, x, 0, 2);
    assert_int_equal(c.s.n_ids, 2);
    kv_seq_hash(&c.s, 3 * BT);
    assert_int_equal(kv_seq_host_run(&c.s, x, 3 * BT, slots, CAP), 1);
    go(&c, x, 1);
    kv_prefix_destroy(x);
}

/* A victim's whole path is worth a copy, not only the leaf that is saved first. */
static void a_claim_outlives_saves_and_ends_with_a_match(void **state)
{
    (void)state;
    struct kv_prefix *x = tier(4, 4);
    struct chain c;
    come(&c, x, 0, 3);
    go(&c, x, 1);
    for (int i = 0; i < 3; i++)
        kv_prefix_claim(x, kv_prefix_find(x, &c.ids[i]), true);
    assert_int_equal(kv_prefix_oldest(x), kv_prefix_find(x, &c.ids[2]));
    for (int i = 3; i > 0; i--) {
        assert_true(kv_prefix_claimed(x, kv_prefix_oldest(x)));
        assert_true(save(x, &c.ids[i - 1]));
        assert_true(kv_prefix_claimed(x, kv_prefix_oldest(x)));
        if (i > 1)
            assert_int_equal(kv_prefix_evict(x, 1), 1);
    }
    assert_int_equal(kv_seq_match(&c.s, x, 3 * BT), BT);
    assert_false(kv_prefix_claimed(x, c.table[0]));
    go(&c, x, 1);
    assert_false(kv_prefix_claimed(x, kv_prefix_oldest(x)));
    kv_prefix_destroy(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_found_from_the_end_of_its_save_on),
        cmocka_unit_test(a_path_is_unsaved_up_to_what_is_saved_or_in_use),
        cmocka_unit_test(a_failed_save_leaves_nothing_behind),
        cmocka_unit_test(a_save_holds_its_block_and_the_path_to_it),
        cmocka_unit_test(what_left_the_device_comes_back_from_its_copies),
        cmocka_unit_test(the_copy_that_expires_first_makes_room),
        cmocka_unit_test(saving_comes_to_rest_in_a_tier_of_any_size),
        cmocka_unit_test(a_copy_being_read_stays),
        cmocka_unit_test(a_private_slot_is_nobodys_copy_and_is_never_taken),
        cmocka_unit_test(a_claim_outlives_saves_and_ends_with_a_match),
        cmocka_unit_test(a_copy_without_its_parents_waits_for_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
