#define _GNU_SOURCE
/* Goal: the records stay in etcd as long as etcd lets them, whatever it refuses meanwhile, and are gone after withdraw.
 * Method: an etcd of the test's own, with a clock of its own: what is slow there costs no time here. */
#include "store_rig.h"

#include "fake_etcd.h"

#include <sched.h>
#include <signal.h>

static struct fake_etcd etcd;

static struct dyn_store *open_etcd(const char *servers)
{
    const struct dyn_store_options o = {.backend = "etcd", .endpoints = servers, .instance = 77};
    struct dyn_store *s = NULL;
    struct err e = {0};
    if (dyn_store_open(&s, &o, &e))
        fail_msg("%s", e.text);
    return s;
}

static int start(void **state)
{
    (void)state;
    fake_start(&etcd);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fake_stop(&etcd);
    return mem_live() != 0;
}

/* Nobody waits for it. */
static void publish_only(struct dyn_store *s, const char *key, const char *value)
{
    struct dyn_record r = record(DYN_CARDS, key, value);
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
}

static void a_full_etcd_keeps_what_it_has(void **state)
{
    (void)state;
    struct dyn_store *s = open_etcd(etcd.url);
    struct err e = {0};
    publish(s, DYN_INSTANCES, "a", "A");
    fake_set_fault(&etcd, FAKE_WRITE, 429, fake_no_space);
    fake_set_fault(&etcd, FAKE_GRANT, 429, fake_no_space);
    for (uint32_t i = 0; i < 5; i++) { /* 20 s */
        uint64_t rounds = fake_calls(&etcd, FAKE_WRITE) + fake_calls(&etcd, FAKE_GRANT);
        publish_only(s, "b", "B");
        while (fake_calls(&etcd, FAKE_WRITE) + fake_calls(&etcd, FAKE_GRANT) == rounds)
            sched_yield();
        assert_int_equal(fake_n_keys(&etcd), 1);
        atomic_fetch_add(&clock_ahead_ns, 4 * (int64_t)NS_PER_S);
    }
    assert_int_equal(dyn_store_settle(s, 1, &e), ST_ETIMEOUT);
    assert_non_null(strstr(e.text, "space exceeded"));
    fake_set_fault(&etcd, FAKE_WRITE, 0, NULL);
    publish(s, DYN_CARDS, "b", "B"); /* grants are still refused: none is needed */
    assert_int_equal(fake_n_keys(&etcd), 2);
    assert_int_equal(etcd.expired, 0);

    fake_set_fault(&etcd, FAKE_WRITE, 429, fake_no_space);
    uint64_t refused = fake_calls(&etcd, FAKE_WRITE);
    publish_only(s, "c", "C");
    fake_await_calls(&etcd, FAKE_WRITE, refused + 1);
    dyn_store_withdraw(s, SETTLE_MS);
    assert_int_equal(fake_n_keys(&etcd), 0);
    assert_int_equal(fake_calls(&etcd, FAKE_REVOKE), 1);
    dyn_store_close(s);
}

/* Whether an etcd that does not answer has granted is not known: it is asked. */
static void a_lease_that_was_asked_for_is_revoked(void **state)
{
    (void)state;
    struct dyn_store *s = open_etcd(etcd.url);
    fake_set_fault(&etcd, FAKE_GRANT, 200, "this is no reply");
    publish_only(s, "a", "A");
    fake_await_calls(&etcd, FAKE_GRANT, 1);
    dyn_store_withdraw(s, SETTLE_MS);
    assert_int_equal(fake_calls(&etcd, FAKE_REVOKE), 1);
    dyn_store_close(s);
}

static void a_lost_lease_is_granted_again(void **state)
{
    (void)state;
    struct dyn_store *s = open_etcd(etcd.url);
    publish(s, DYN_INSTANCES, "a", "A");
    atomic_fetch_add(&clock_ahead_ns, 11 * (int64_t)NS_PER_S);
    assert_int_equal(fake_n_keys(&etcd), 0);
    publish(s, DYN_CARDS, "b", "B");
    assert_int_equal(fake_n_keys(&etcd), 2);
    assert_int_equal(fake_calls(&etcd, FAKE_GRANT), 2);
    dyn_store_close(s);
    assert_int_equal(fake_n_keys(&etcd), 0);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_full_etcd_keeps_what_it_has, start, stop),
        cmocka_unit_test_setup_teardown(a_lease_that_was_asked_for_is_revoked, start, stop),
        cmocka_unit_test_setup_teardown(a_lost_lease_is_granted_again, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
