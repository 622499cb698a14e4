#define _GNU_SOURCE
/* Goal: what was published stands in the store under the documented names and comes back when the store loses it; nothing of it
 *       is left after withdraw.
 * Method: the file store in a temporary folder; etcd on loopback where it is installed (skipped with a word otherwise), killed
 *         and restarted empty. Publishing one more record starts a round at once, so nothing here waits for a timer. */
#include "clock.h"
#include "dyn_curl.h"
#include "dyn_etcd.h"
#include "dyn_store.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { SETTLE_MS = 20000 };

static char root[64];

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/stator_store_XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static struct dyn_record record(enum dyn_bucket bucket, const char *key, const char *value)
{
    struct dyn_record r = {.bucket = bucket};
    buf_puts(&r.key, key);
    buf_puts(&r.value, value);
    return r;
}

static void publish(struct dyn_store *s, enum dyn_bucket bucket, const char *key, const char *value)
{
    struct dyn_record r = record(bucket, key, value);
    struct err e = {0};
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    if (dyn_store_settle(s, SETTLE_MS, &e))
        fail_msg("%s", e.text);
}

static uint32_t n_files(const char *bucket)
{
    char path[128];
    snprintf(path, sizeof path, "%s/deep/er/%s", root, bucket);
    DIR *d = opendir(path);
    assert_non_null(d);
    uint32_t n = 0;
    for (struct dirent *f; (f = readdir(d));)
        n += strcmp(f->d_name, ".") != 0 &&
             strcmp(f->d_name, "..") != 0; /* half-written ones would count too */
    closedir(d);
    return n;
}

static void assert_file(const char *bucket, const char *name, const char *content)
{
    char path[256], text[256] = "";
    snprintf(path, sizeof path, "%s/deep/er/%s/%s", root, bucket, name);
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("%s is not there", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = 0;
    fclose(f);
    assert_string_equal(text, content);
}

static struct dyn_store *open_files(void)
{
    static char folder[96];
    snprintf(folder, sizeof folder, "%s/deep/er", root);
    const struct dyn_store_options o = {.backend = "file", .folder = folder, .instance = 7};
    struct dyn_store *s = NULL;
    struct err e = {0};
    if (dyn_store_open(&s, &o, &e))
        fail_msg("%s", e.text);
    return s;
}

static void files_carry_the_key_percent_encoded(void **state)
{
    (void)state;
    struct dyn_store *s = open_files();
    assert_false(dyn_store_registered(s));
    publish(s, DYN_INSTANCES, "dynamo/backend/generate/7c039f38d2fc3a24", "{\"a\":1}");
    assert_true(dyn_store_registered(s));
    assert_file("v1/instances", "dynamo%2Fbackend%2Fgenerate%2F7c039f38d2fc3a24", "{\"a\":1}");
    publish(s, DYN_EVENT_SOURCES, "namespace/a%2Eb/topic/kv-events_x/1", "{}");
    assert_file("v1/event_sources", "namespace%2Fa%252Eb%2Ftopic%2Fkv%2Devents%5Fx%2F1", "{}");
    publish(s, DYN_CARDS, "k", "old");
    publish(s, DYN_CARDS, "k", "new");
    assert_file("v1/mdc", "k", "new");
    assert_int_equal(n_files("v1/mdc"), 1);
    dyn_store_withdraw(s, SETTLE_MS);
    assert_false(dyn_store_registered(s));
    for (int b = 0; b < 4; b++)
        assert_int_equal(
            n_files((const char *[]){"v1/instances", "v1/mdc", "v1/event_channels", "v1/event_sources"}[b]),
            0);
    struct dyn_record late = record(DYN_CARDS, "late", "{}"); /* comes after the last word: dropped */
    assert_int_equal(dyn_store_publish(s, &late), ST_OK);
    dyn_store_close(s);
    assert_int_equal(n_files("v1/mdc"), 0);
    assert_int_equal(mem_live(), 0);
}

static void records_are_touched_and_written_again_when_lost(void **state)
{
    (void)state;
    struct dyn_store *s = open_files();
    publish(s, DYN_INSTANCES, "a", "A");
    publish(s, DYN_CARDS, "b", "B");
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/deep/er/v1/instances/a", root);
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    ino_t inode = stat(path, &st) ? 0 : st.st_ino;
    publish(s, DYN_EVENT_CHANNELS, "c", "C");
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_mtime > 1000 &&
                st.st_ino == inode); /* touched, not written again: watchers see no change */

    snprintf(path, sizeof path, "rm -rf %s/deep", root);
    assert_int_equal(system(path), 0);
    publish(s, DYN_EVENT_CHANNELS, "d", "D");
    assert_file("v1/instances", "a", "A");
    assert_file("v1/mdc", "b", "B");
    assert_file("v1/event_channels", "c", "C");
    dyn_store_close(s); /* withdraws */
    assert_int_equal(n_files("v1/instances") + n_files("v1/mdc") + n_files("v1/event_channels"), 0);
    assert_int_equal(mem_live(), 0);
}

static void a_store_that_cannot_be_written_says_why(void **state)
{
    (void)state;
    struct dyn_store *s = NULL;
    struct err e = {0};
    const struct dyn_store_options o = {.backend = "file", .folder = "/proc/no/such", .instance = 7};
    assert_int_equal(dyn_store_open(&s, &o, &e), ST_EIO);
    assert_non_null(strstr(e.text, "/proc/no"));

    s = open_files();
    char path[128];
    snprintf(path, sizeof path, "%s/deep/er/v1", root);
    assert_int_equal(remove_root(NULL), 0);
    snprintf(path, sizeof path, "%s", root);
    FILE *f = fopen(path, "w"); /* a file where a folder must be */
    assert_non_null(f);
    fclose(f);
    struct dyn_record r = record(DYN_CARDS, "k", "v");
    assert_int_equal(dyn_store_publish(s, &r), ST_OK);
    assert_int_equal(dyn_store_settle(s, 50, &e), ST_ETIMEOUT);
    assert_non_null(strstr(e.text, strerror(ENOTDIR)));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(dyn_store_settle(s, SETTLE_MS, &e), ST_OK); /* it went on trying */
    assert_file("v1/mdc", "k", "v");
    struct dyn_record failed = {.bucket = DYN_CARDS, .value = {.failed = ST_ENOMEM}};
    assert_int_equal(dyn_store_publish(s, &failed), ST_ENOMEM);
    dyn_store_close(s);
    assert_int_equal(mem_live(), 0);
}

static void instances_are_random_and_positive(void **state)
{
    (void)state;
    uint64_t a = dyn_store_random_instance(), b = dyn_store_random_instance();
    assert_true(a != b && a > 0 && b > 0 && a >> 63 == 0 && b >> 63 == 0);
}

/* ---- etcd ------------------------------------------------------------------------------------------------------------- */

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
    assert_int_equal(dyn_curl_open(&c, &e), ST_OK);
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
    assert_int_equal(dyn_curl_open(&c, &e), ST_OK);
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
    bool alive = true, other = false;
    struct err e = {0};
    assert_int_equal(dyn_etcd_take_keepalive(STR_LIT("{\"result\":{\"ID\":\"5\"}}"), &alive, &e), ST_OK);
    assert_false(alive);
    assert_int_equal(dyn_etcd_take_created(STR_LIT("{\"header\":{}}"), 5, &other, &e), ST_EFORMAT);
    const char *found = "{\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"aw==\",\"lease\":"
                        "\"18446744073709551615\"}]}}]}";
    assert_int_equal(dyn_etcd_take_created(str_from(found), UINT64_MAX, &other, &e), ST_OK);
    assert_false(other);
    assert_int_equal(dyn_etcd_take_created(str_from(found), UINT64_MAX - 1, &other, &e), ST_OK);
    assert_true(other);
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
    const struct CMUnitTest files[] = {
        cmocka_unit_test_setup_teardown(files_carry_the_key_percent_encoded, make_root, remove_root),
        cmocka_unit_test_setup_teardown(records_are_touched_and_written_again_when_lost, make_root,
                                        remove_root),
        cmocka_unit_test_setup_teardown(a_store_that_cannot_be_written_says_why, make_root, remove_root),
        cmocka_unit_test(instances_are_random_and_positive),
    };
    const struct CMUnitTest gateway[] = {
        cmocka_unit_test(etcd_holds_the_records_on_our_lease),
        cmocka_unit_test(etcd_takes_user_and_password),
        cmocka_unit_test(etcd_addresses_are_checked),
        cmocka_unit_test(etcd_replies_that_lie_are_refused),
        cmocka_unit_test(base64_is_padded),
    };
    int failed = cmocka_run_group_tests_name("files", files, NULL, NULL);
    return failed + cmocka_run_group_tests_name("etcd", gateway, make_root, stop_etcd);
}
