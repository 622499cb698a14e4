#define _GNU_SOURCE
/* Goal: what was published stands in etcd on our lease and comes back when etcd loses it; nothing of it is left after withdraw.
 * Method: etcd on loopback where it is installed (skipped with a word otherwise), killed and restarted empty. Publishing one more
 *         record starts a round at once, so nothing here waits for a timer. */
#include "store_rig.h"

#include "dyn_curl.h"
#include "dyn_etcd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct dyn_curl_tls no_tls = {0};

static struct {
    pid_t pid;
    char url[64], peer[64];
    uint32_t starts;
} etcd;

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(bind(fd, (struct sockaddr *)&a, n) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0);
    close(fd);
    return ntohs(a.sin_port);
}

static bool etcd_installed(void)
{
    return access("/usr/bin/etcd", X_OK) == 0;
}

/* Each start has an empty store. */
static void start_etcd(void)
{
    char data[96], cluster[96];
    snprintf(data, sizeof data, "%s/etcd%u", root, etcd.starts++);
    snprintf(cluster, sizeof cluster, "default=%s", etcd.peer);
    etcd.pid = fork();
    assert_true(etcd.pid >= 0);
    if (etcd.pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        dup2(null, 2);
        execl("/usr/bin/etcd", "etcd", "--data-dir", data, "--listen-client-urls", etcd.url,
              "--advertise-client-urls", etcd.url, "--listen-peer-urls", etcd.peer,
              "--initial-advertise-peer-urls", etcd.peer, "--initial-cluster", cluster, "--unsafe-no-fsync",
              (char *)NULL);
        _exit(127);
    }
}

static void kill_etcd(void)
{
    kill(etcd.pid, SIGKILL);
    waitpid(etcd.pid, NULL, 0);
}

static int stop_etcd(void **state)
{
    if (etcd.pid > 0)
        kill_etcd();
    return remove_root(state);
}

/* What one call says; "" when the server cannot be reached. */
static struct str ask(struct dyn_curl *c, const char *path, const char *body, struct buf *reply)
{
    char url[128];
    long http;
    struct err e = {0};
    snprintf(url, sizeof url, "%s/v3/%s", etcd.url, path);
    return dyn_curl_post(c, url, NULL, str_from(body), 3000, reply, &http, &e) ? (struct str){0}
                                                                               : buf_str(reply);
}

static uint32_t n_keys(struct dyn_curl *c)
{
    struct buf reply = {0};
    /* all from "v1/" on */
    struct str s = ask(c, "kv/range", "{\"key\":\"djEv\",\"range_end\":\"djEw\"}", &reply);
    uint32_t n = 0;
    for (const char *at = s.n ? s.p : ""; (at = strstr(at, "\"key\":")); at++)
        n++;
    buf_fini(&reply);
    return n;
}

/* Counts what was ever written. */
static uint64_t revision_of(struct dyn_curl *c)
{
    struct buf reply = {0};
    struct str s = ask(c, "kv/range", "{\"key\":\"eA==\"}", &reply);
    const char *at = s.n ? strstr(s.p, "\"revision\":\"") : NULL;
    assert_non_null(at);
    uint64_t revision = strtoull(at + 12, NULL, 10);
    buf_fini(&reply);
    return revision;
}

static void etcd_holds_the_records_on_our_lease(void **state)
{
    (void)state;
    if (!etcd_installed()) {
        print_message("etcd-server is not installed\n");
        skip();
    }
    snprintf(etcd.url, sizeof etcd.url, "http://127.0.0.1:%u", free_port());
    snprintf(etcd.peer, sizeof etcd.peer, "http://127.0.0.1:%u", free_port());
    char servers[256];
    snprintf(servers, sizeof servers, "http://127.0.0.1:%u/, %s", free_port(),
             etcd.url); /* nobody is at the first */
    const struct dyn_store_options o = {
        .backend = "etcd", .endpoints = servers, .instance = 0x7c039f38d2fc3a24};
    struct dyn_store *s = NULL;
    struct dyn_curl *c = NULL;
    struct err e = {0};
    struct buf reply = {0};
    assert_int_equal(dyn_store_open(&s, &o, &e), ST_OK);
    assert_int_equal(dyn_curl_open(&c, &no_tls, &e), ST_OK);
    struct dyn_record r = record(DYN_INSTANCES, "dynamo/backend/generate/7c039f38d2fc3a24",
                                 "{\"instance_id\":8936161152039926308}");
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    assert_int_equal(dyn_store_settle(s, 1, &e), ST_ETIMEOUT); /* there is no etcd yet */
    start_etcd();
    publish(s, DYN_CARDS, "k", "{}");
    assert_int_equal(n_keys(c), 2);
    /* "v1/instances/dynamo/backend/generate/7c039f38d2fc3a24" */
    struct str one =
        ask(c, "kv/range",
            "{\"key\":\"djEvaW5zdGFuY2VzL2R5bmFtby9iYWNrZW5kL2dlbmVyYXRlLzdjMDM5ZjM4ZDJmYzNhMjQ=\"}", &reply);
    assert_non_null(memmem(one.p, one.n, "\"lease\":\"8936161152039926308\"", 29));
    assert_non_null(memmem(one.p, one.n, "eyJpbnN0YW5jZV9pZCI6ODkzNjE2MTE1MjAzOTkyNjMwOH0=", 48));
    publish(s, DYN_CARDS, "k", "{\"other\":1}"); /* replaced: "v1/mdc/k" */
    one = ask(c, "kv/range", "{\"key\":\"djEvbWRjL2s=\"}", &reply);
    assert_non_null(memmem(one.p, one.n, "eyJvdGhlciI6MX0=", 16));
    uint64_t revision = revision_of(c);
    publish(s, DYN_CARDS, "k", "{\"other\":1}"); /* nothing new: nothing is written */
    assert_int_equal(revision_of(c), revision);

    kill_etcd();
    start_etcd(); /* empty */
    publish(s, DYN_EVENT_CHANNELS, "c", "{}");
    assert_int_equal(n_keys(c), 3);
    /* Somebody revokes the lease: everything is gone, and comes back. */
    ask(c, "lease/revoke", "{\"ID\":\"8936161152039926308\"}", &reply);
    assert_int_equal(n_keys(c), 0);
    publish(s, DYN_EVENT_CHANNELS, "d", "{}");
    assert_int_equal(n_keys(c), 4);
    dyn_store_withdraw(s, SETTLE_MS);
    assert_int_equal(n_keys(c), 0);
    dyn_store_close(s);
    dyn_curl_close(c);
    buf_fini(&reply);
}

static void etcd_takes_user_and_password(void **state)
{
    (void)state;
    if (!etcd_installed())
        skip();
    struct dyn_curl *c = NULL;
    struct buf reply = {0};
    struct err e = {0};
    assert_int_equal(dyn_curl_open(&c, &no_tls, &e), ST_OK);
    ask(c, "auth/role/add", "{\"name\":\"root\"}", &reply);
    ask(c, "auth/user/add", "{\"name\":\"root\",\"password\":\"se\\\"cret\"}", &reply);
    ask(c, "auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}", &reply);
    ask(c, "auth/enable", "{}", &reply);
    struct dyn_store_options o = {
        .backend = "etcd", .endpoints = etcd.url, .instance = 99, .user = "root", .password = "wrong"};
    struct dyn_store *s = NULL;
    assert_int_equal(dyn_store_open(&s, &o, &e), ST_OK);
    struct dyn_record r = record(DYN_CARDS, "k", "{}");
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    assert_int_equal(dyn_store_settle(s, 1500, &e), ST_ETIMEOUT);
    if (!strstr(e.text, "authentication failed"))
        fail_msg("%s", e.text);
    dyn_store_close(s);
    o.password = "se\"cret";
    assert_int_equal(dyn_store_open(&s, &o, &e), ST_OK);
    publish(s, DYN_CARDS, "k", "{}");
    dyn_store_close(s);
    dyn_curl_close(c);
    buf_fini(&reply);
}

static void etcd_addresses_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", " , ", "localhost:2379", "http://a,b",
        "http://1,http://2,http://3,http://4,http://5,http://6,http://7,http://8,http://9"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct dyn_store *s = NULL;
        struct err e = {0};
        const struct dyn_store_options o = {.backend = "etcd", .endpoints = bad[i], .instance = 1};
        assert_int_equal(dyn_store_open(&s, &o, &e), ST_EINVAL);
        assert_memory_equal(e.text, "--etcd-endpoints", 16);
    }
}

static void etcd_replies_that_lie_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "x", "[]", "{\"result\":1}", "{\"result\":{\"TTL\":10}}", "{\"result\":{\"TTL\":\"1x\"}}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bool alive;
        struct err e = {0};
        assert_int_equal(dyn_etcd_take_keepalive(str_from(bad[i]), &alive, &e), ST_EFORMAT);
    }
    bool alive = true;
    struct err e = {0};
    assert_int_equal(dyn_etcd_take_keepalive(STR_LIT("{\"result\":{\"ID\":\"5\"}}"), &alive, &e), ST_OK);
    assert_false(alive);
    assert_int_equal(dyn_etcd_take_written(STR_LIT("{\"header\":{}}"), &e), ST_EIO);
    assert_int_equal(dyn_etcd_take_written(STR_LIT("{\"succeeded\":1}"), &e), ST_EIO);
    assert_int_equal(dyn_etcd_take_written(STR_LIT("{\"succeeded\":true}"), &e), ST_OK);
    struct buf token = {0};
    assert_int_equal(dyn_etcd_take_token(STR_LIT("{\"token\":\"a\\r\\nX: y\"}"), &token, &e), ST_EFORMAT);
    int64_t code;
    assert_int_equal(
        dyn_etcd_check(STR_LIT("{\"error\":\"gone\",\"message\":\"gone\",\"code\":5}"), 404, &code, &e),
        ST_EIO);
    assert_int_equal(code, 5);
    assert_string_equal(e.text, "etcd: gone (HTTP 404)");
    buf_fini(&token);
}

/* One record, "v" under "k", and what is said of it. */
static int found(const char *reply, uint64_t lease, bool *stands, uint64_t *revision, struct err *e)
{
    struct dyn_record r = record(DYN_CARDS, "k", "v");
    *stands = true;
    *revision = 9;
    int st = dyn_etcd_take_found(str_from(reply), &r, 1, lease, stands, revision, e);
    buf_fini(&r.key);
    buf_fini(&r.value);
    return st;
}

static void what_is_found_stands_when_value_and_lease_are_ours(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{}",
        "{\"responses\":1}",
        "{\"responses\":[]}",
        "{\"responses\":[1]}",
        "{\"responses\":[{}]}",
        "{\"responses\":[{\"response_range\":{}},{\"response_range\":{}}]}",
        "{\"responses\":[{\"response_range\":{\"kvs\":[1]}}]}",
        "{\"responses\":[{\"response_range\":{\"kvs\":[{\"lease\":\"5\"}]}}]}",
        "{\"responses\":[{\"response_range\":{\"kvs\":[{\"lease\":5,\"mod_revision\":\"1\"}]}}]}",
        "{\"responses\":[{\"response_range\":{\"kvs\":[{\"lease\":\"5\",\"mod_revision\":\"x\"}]}}]}"};
    bool stands;
    uint64_t revision;
    struct err e = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(found(bad[i], 5, &stands, &revision, &e), ST_EFORMAT);
    assert_int_equal(found("{\"responses\":[{\"response_range\":{}}]}", 5, &stands, &revision, &e), ST_OK);
    assert_true(!stands && revision == 0);
    const char *ours = "{\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"aw==\",\"value\":\"dg==\","
                       "\"mod_revision\":\"3\",\"lease\":\"18446744073709551615\"}]}}]}";
    assert_int_equal(found(ours, UINT64_MAX, &stands, &revision, &e), ST_OK);
    assert_true(stands && revision == 3);
    assert_int_equal(found(ours, UINT64_MAX - 1, &stands, &revision, &e), ST_EIO);
    assert_string_equal(e.text, "etcd: v1/mdc/k belongs to another lease");
    assert_int_equal(found("{\"responses\":[{\"responseRange\":{\"kvs\":[{\"value\":\"dw==\","
                           "\"modRevision\":\"3\",\"lease\":\"5\"}]}}]}",
                           5, &stands, &revision, &e),
                     ST_OK);
    assert_true(!stands && revision == 3); /* another value */
}

static void base64_is_padded(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"\xff\xfe\xfd\xfb", "//79+w=="}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct buf out = {0};
        dyn_etcd_put_base64(&out, str_from(pairs[i][0]));
        assert_true(str_eqz(buf_str(&out), pairs[i][1]));
        buf_fini(&out);
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(etcd_holds_the_records_on_our_lease),
        cmocka_unit_test(etcd_takes_user_and_password),
        cmocka_unit_test(etcd_addresses_are_checked),
        cmocka_unit_test(etcd_replies_that_lie_are_refused),
        cmocka_unit_test(what_is_found_stands_when_value_and_lease_are_ours),
        cmocka_unit_test(base64_is_padded),
    };
    return cmocka_run_group_tests(tests, make_root, stop_etcd);
}
