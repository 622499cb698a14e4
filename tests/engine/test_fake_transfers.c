/* Goal: the fake backend's copies are as late as they may be and never later, so that an engine's mistakes show.
 * Method: its op table by hand: steps of one row, stores and loads around them. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fake_be.h"

enum { BLOCK = 4, BLOCKS = 8, BYTES = BLOCK * sizeof(uint64_t) };

static struct fake_be f;
static struct be_kv *kv;
static uint64_t host[BLOCKS][BLOCK];

static int open_fake(void **state)
{
    (void)state;
    f = (struct fake_be){.max_rows = 1, .max_seqs = 1};
    f.ops = fake_ops;
    f.ops.depth = 2;
    f.be.ops = &f.ops;
    return f.ops.kv_create(&f.be, &(struct be_kv_shape){1, 1, 1, BLOCK, BLOCKS, BE_F32}, &kv, NULL);
}

static int close_fake(void **state)
{
    (void)state;
    f.ops.kv_destroy(&f.be, kv);
    return 0;
}

/* Token `t` at position 0 of `block`. */
static void launch(uint32_t block, int32_t t)
{
    uint32_t position = 0, slot = block * BLOCK, table[1] = {block};
    struct be_span span = {.n_rows = 1, .n_blocks = 1, .table = table};
    struct be_batch b = {
        .n_rows = 1, .n_spans = 1, .tokens = &t, .positions = &position, .kv_slots = &slot, .spans = &span};
    assert_int_equal(f.ops.begin_step(&f.be, &b), ST_OK);
    assert_int_equal(fake_forward(&f, &b, kv, NULL), ST_OK);
    assert_int_equal(f.ops.end_step(&f.be, NULL), ST_OK);
}

static uint64_t begin(uint32_t block, uint64_t *at, bool store)
{
    uint64_t ticket;
    struct be_block_copy c = {block, at};
    assert_int_equal((store ? f.ops.kv_store : f.ops.kv_load)(&f.be, kv, &c, 1, &ticket), ST_OK);
    return ticket;
}

static void finish(uint64_t ticket)
{
    uint32_t polls = 1;
    while (f.ops.copy_poll(&f.be, ticket) == 0)
        polls++;
    assert_in_range(polls, 1, FAKE_POLLS_MAX);
    assert_int_equal(f.ops.copy_poll(&f.be, ticket), 1);
}

static void a_store_takes_what_the_steps_launched_before_it_leave(void **state)
{
    (void)state;
    launch(3, 5);
    uint64_t t = begin(3, host[0], true);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(f.ops.copy_poll(&f.be, t), 0); /* that step has not run */
    assert_int_equal(f.ops.wait_step(&f.be, NULL), ST_OK);
    assert_int_not_equal(host[0][0], fake_kv(0, 5, 0));
    finish(t);
    assert_int_equal(host[0][0], fake_kv(0, 5, 0));
    assert_int_equal(f.transfers.stored, 1);
}

static void a_load_is_there_for_the_steps_launched_after_it_not_before(void **state)
{
    (void)state;
    uint64_t *block = f.kv + (size_t)2 * BLOCK;
    for (uint32_t i = 0; i < BLOCK; i++)
        host[1][i] = 100 + i;
    launch(2, 5);
    uint64_t t = begin(2, host[1], false);
    launch(4, 6);
    assert_int_equal(f.ops.wait_step(&f.be, NULL), ST_OK);
    assert_int_equal(block[0], fake_kv(0, 5, 0));
    assert_int_equal(f.ops.wait_step(&f.be, NULL), ST_OK);
    assert_memory_equal(block, host[1], BYTES);
    host[1][0] = 7; /* too early: it is read until the copy is done */
    finish(t);
    assert_int_equal(block[0], 7);
    assert_int_equal(f.transfers.loaded, 1);
}

static void too_many_and_bad_ones_are_refused(void **state)
{
    (void)state;
    uint64_t tickets[FAKE_TRANSFERS], t;
    struct be_block_copy bad = {BLOCKS, host[0]}, more = {FAKE_TRANSFERS, host[FAKE_TRANSFERS]};
    assert_int_equal(f.ops.kv_store(&f.be, kv, &bad, 1, &t), ST_EINVAL);
    assert_int_equal(f.ops.kv_store(&f.be, kv, &more, 0, &t), ST_EINVAL);
    assert_int_equal(f.ops.copy_poll(&f.be, 0), ST_EINVAL);
    for (uint32_t i = 0; i < FAKE_TRANSFERS; i++)
        tickets[i] = begin(i, host[i], true);
    assert_int_equal(f.ops.kv_store(&f.be, kv, &more, 1, &t), ST_AGAIN);
    finish(tickets[1]);
    assert_int_equal(f.ops.kv_store(&f.be, kv, &more, 1, &t), ST_OK);
    finish(t);
    for (uint32_t i = 0; i < FAKE_TRANSFERS; i++)
        finish(tickets[i]);
}

static void a_failed_device_has_nothing_under_way(void **state)
{
    (void)state;
    uint64_t t = begin(0, host[0], true);
    f.fail_call = f.calls + 1;
    assert_int_equal(f.ops.copy_poll(&f.be, t), ST_EDEVICE);
    assert_int_equal(f.transfers.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_store_takes_what_the_steps_launched_before_it_leave, open_fake,
                                        close_fake),
        cmocka_unit_test_setup_teardown(a_load_is_there_for_the_steps_launched_after_it_not_before, open_fake,
                                        close_fake),
        cmocka_unit_test_setup_teardown(too_many_and_bad_ones_are_refused, open_fake, close_fake),
        cmocka_unit_test_setup_teardown(a_failed_device_has_nothing_under_way, open_fake, close_fake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
