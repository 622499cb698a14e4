#define _GNU_SOURCE
/* Goal: the records stay in etcd as long as etcd lets them, whatever it refuses meanwhile, and are gone after withdraw.
 * Method: an etcd of the test's own, with a clock of its own: what is slow there costs no time here. */
#include "store_rig.h"

#include "dyn_etcd.h"
#include "fake_etcd.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>

static struct fake_etcd etcd, lonely;

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

static void assert_value(const char *key, const char *value)
{
    struct buf k = {0}, v = {0};
    dyn_etcd_put_base64(&k, str_from(key));
    dyn_etcd_put_base64(&v, str_from(value));
    pthread_mutex_lock(&etcd.lock);
    const struct fake_key *at = fake_find(&etcd, k.p);
    bool there = at && strcmp(at->value, v.p) == 0;
    pthread_mutex_unlock(&etcd.lock);
    buf_fini(&k);
    buf_fini(&v);
    assert_true(there);
}

/* What stands under a key is changed by somebody; NULL: deleted. */
static void set_value(const char *key, const char *value, const char *lease)
{
    struct buf k = {0}, v = {0};
    dyn_etcd_put_base64(&k, str_from(key));
    dyn_etcd_put_base64(&v, str_from(value));
    pthread_mutex_lock(&etcd.lock);
    struct fake_key *at = fake_find(&etcd, k.p);
    if (at && value) {
        snprintf(at->value, sizeof at->value, "%s", v.p);
        snprintf(at->lease, sizeof at->lease, "%s", lease);
        at->revision = ++etcd.revision;
    } else if (at) {
        at->key[0] = 0;
    }
    pthread_mutex_unlock(&etcd.lock);
    buf_fini(&k);
    buf_fini(&v);
    assert_non_null(at);
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

/* Somebody writes to our keys whenever we are about to look, so that each round has something to write. */
static void overwrite(enum fake_call call)
{
    for (size_t i = 0; call == FAKE_READ && i < sizeof etcd.keys / sizeof *etcd.keys; i++)
        etcd.keys[i].value[0] = 0;
}

/* 2.9 s for each call, less than a call may take: a round of three would take longer than a lease lives, from a keepalive that
 * etcd saw at once to one that it sees late. */
static void a_slow_etcd_keeps_the_records(void **state)
{
    (void)state;
    struct dyn_store *s = open_etcd(etcd.url);
    publish(s, DYN_CARDS, "b", "B");
    fake_set_seen(&etcd, overwrite);
    fake_set_cost(&etcd, 2900 * (int64_t)NS_PER_MS);
    publish_only(s, "b", "B");
    fake_await_calls(&etcd, FAKE_KEEPALIVE, 40); /* rounds follow each other without a wait */
    fake_set_seen(&etcd, NULL);
    publish(s, DYN_INSTANCES, "a", "A");
    assert_true(dyn_store_registered(s));
    assert_int_equal(fake_n_keys(&etcd), 2);
    assert_int_equal(etcd.expired, 0);
    assert_int_equal(fake_calls(&etcd, FAKE_GRANT), 1);
    dyn_store_close(s);
}

static void only_what_is_missing_or_other_is_written(void **state)
{
    (void)state;
    struct dyn_store *s = open_etcd(etcd.url);
    publish(s, DYN_INSTANCES, "a", "A");
    publish(s, DYN_CARDS, "b", "B");
    assert_int_equal(fake_calls(&etcd, FAKE_WRITE), 2);
    for (uint32_t i = 0; i < 5; i++)
        publish(s, DYN_CARDS, "b", "B");
    assert_int_equal(fake_calls(&etcd, FAKE_WRITE), 2);
    assert_int_equal(fake_calls(&etcd, FAKE_READ), 7);
    publish(s, DYN_CARDS, "b", "another");
    assert_int_equal(fake_calls(&etcd, FAKE_WRITE), 3);
    assert_value("v1/mdc/b", "another");
    set_value("v1/mdc/b", "his", "77"); /* somebody's text, on our lease */
    publish(s, DYN_CARDS, "b", "another");
    assert_value("v1/mdc/b", "another");
    set_value("v1/mdc/b", "his", "78"); /* and on his own */
    struct err e = {0};
    publish_only(s, "b", "another");
    assert_int_equal(dyn_store_settle(s, 1, &e), ST_ETIMEOUT);
    fake_await_calls(&etcd, FAKE_READ, 10);
    assert_value("v1/mdc/b", "his");
    dyn_store_close(s);
}

static struct dyn_store *watched;
static _Atomic int seen_registered, seen_writes;

static void look(enum fake_call call)
{
    seen_registered += (call == FAKE_WRITE || call == FAKE_GRANT) && dyn_store_registered(watched);
    seen_writes += call == FAKE_WRITE;
}

static void who_is_missing_is_not_registered(void **state)
{
    (void)state;
    watched = open_etcd(etcd.url);
    publish(watched, DYN_INSTANCES, "a", "A");
    assert_true(dyn_store_registered(watched));
    fake_set_seen(&etcd, look);
    set_value("v1/instances/a", NULL, NULL); /* deleted */
    publish(watched, DYN_CARDS, "b", "B");
    assert_true(seen_writes == 1 && seen_registered == 0);
    fake_revoke(&etcd);
    publish(watched, DYN_CARDS, "b", "B");
    assert_true(seen_writes == 2 && seen_registered == 0);
    assert_true(dyn_store_registered(watched));
    fake_set_seen(&etcd, NULL);
    /* Nobody keeps them: they are out when their time is. */
    fake_set_fault(&etcd, FAKE_KEEPALIVE, 503, "no etcd");
    atomic_fetch_add(&clock_ahead_ns, 9 * (int64_t)NS_PER_S);
    assert_true(dyn_store_registered(watched));
    atomic_fetch_add(&clock_ahead_ns, (int64_t)NS_PER_S);
    assert_false(dyn_store_registered(watched));
    dyn_store_close(watched);
}

/* A member that is cut off from the others answers, and others would do better. What all of them refuse is refused. */
static void a_member_without_leader_hides_no_other(void **state)
{
    (void)state;
    static const char *const says[] = {fake_no_leader, "{\"error\":\"late\",\"code\":4,\"message\":\"late\"}",
                                       "{\"error\":\"busy\",\"code\":8,\"message\":\"too many requests\"}"};
    char servers[160];
    snprintf(servers, sizeof servers, "%s,%s", lonely.url, etcd.url);
    for (size_t i = 0; i < sizeof says / sizeof *says; i++) {
        for (int call = 0; call < FAKE_CALLS; call++)
            fake_set_fault(&lonely, call, 503, says[i]);
        struct dyn_store *s = open_etcd(servers);
        publish(s, DYN_INSTANCES, "a", "A");
        assert_int_equal(fake_n_keys(&etcd), 1);
        assert_int_equal(fake_calls(&lonely, FAKE_GRANT), i + 1);
        assert_int_equal(fake_calls(&lonely, FAKE_READ), 0); /* it began with the one that answered last */
        struct err e = {0};
        for (int call = 0; call < FAKE_CALLS; call++)
            fake_set_fault(&etcd, call, 503, fake_no_leader);
        publish_only(s, "b", "B");
        assert_int_equal(dyn_store_settle(s, 1, &e), ST_ETIMEOUT);
        for (int call = 0; call < FAKE_CALLS; call++)
            fake_set_fault(&etcd, call, 0, NULL);
        dyn_store_close(s);
        assert_int_equal(fake_n_keys(&etcd), 0);
    }
}

/* No thread of that name is left. */
static bool is_gone(const char *name)
{
    bool gone = true;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *t; (t = readdir(d));) {
        char path[300], comm[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", t->d_name);
        FILE *f = fopen(path, "r");
        gone = gone && !(f && fgets(comm, sizeof comm, f) && strncmp(comm, name, strlen(name)) == 0);
        if (f)
            fclose(f);
    }
    closedir(d);
    return gone;
}

static pthread_t main_thread;
static uint32_t times_held_up;

static void hold_main_up(void)
{
    if (!pthread_equal(pthread_self(), main_thread))
        return;
    times_held_up++;
    while (!is_gone("discovery"))
        sched_yield();
}

/* More rounds than replies are kept for, which nobody waits for; then the last word comes while main is not running. */
static void the_last_word_is_heard_after_many(void **state)
{
    (void)state;
    struct dyn_store *s = open_etcd(etcd.url);
    for (uint64_t i = 1; i <= 40; i++) {
        publish_only(s, "a", "A");
        fake_await_calls(&etcd, FAKE_READ, i);
    }
    main_thread = pthread_self();
    times_held_up = 0;
    clock_looked = hold_main_up;
    dyn_store_withdraw(s, SETTLE_MS);
    clock_looked = NULL;
    assert_int_equal(times_held_up, 1); /* it did not look how long there is left to wait */
    dyn_store_close(s);
}

static int start_two(void **state)
{
    fake_start(&lonely);
    return start(state);
}

static int stop_two(void **state)
{
    fake_stop(&lonely);
    return stop(state);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_full_etcd_keeps_what_it_has, start, stop),
        cmocka_unit_test_setup_teardown(a_lease_that_was_asked_for_is_revoked, start, stop),
        cmocka_unit_test_setup_teardown(a_lost_lease_is_granted_again, start, stop),
        cmocka_unit_test_setup_teardown(a_slow_etcd_keeps_the_records, start, stop),
        cmocka_unit_test_setup_teardown(only_what_is_missing_or_other_is_written, start, stop),
        cmocka_unit_test_setup_teardown(who_is_missing_is_not_registered, start, stop),
        cmocka_unit_test_setup_teardown(a_member_without_leader_hides_no_other, start_two, stop_two),
        cmocka_unit_test_setup_teardown(the_last_word_is_heard_after_many, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
