/* An etcd of this test's own, in a thread on loopback: one lease, keys that hang on it, transactions, and the faults of a real
 * one on demand. It has a clock that stands a while ahead of the machine's: what takes an etcd seconds takes a test none. The
 * program under test reads that clock too, as this file stands in for base/clock. */
#ifndef TESTS_FAKE_ETCD_H
#define TESTS_FAKE_ETCD_H

#include "buf.h"
#include "clock.h"
#include "json.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the clock -------------------------------------------------------------------------------------------------------- */

static _Atomic int64_t clock_ahead_ns;
static void (*_Atomic clock_looked)(void); /* whoever asks for the time is held up by this */

static int64_t machine_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

int64_t clock_now_ns(void)
{
    void (*looked)(void) = atomic_load(&clock_looked);
    if (looked)
        looked();
    return machine_ns(CLOCK_MONOTONIC) + atomic_load(&clock_ahead_ns);
}

int64_t clock_wall_s(void)
{
    return machine_ns(CLOCK_REALTIME) / NS_PER_S;
}

int64_t clock_wall_ms(void)
{
    return machine_ns(CLOCK_REALTIME) / NS_PER_MS;
}

/* ---- what it holds ---------------------------------------------------------------------------------------------------- */

enum fake_call { FAKE_GRANT, FAKE_KEEPALIVE, FAKE_REVOKE, FAKE_READ, FAKE_WRITE, FAKE_CALLS };

/* Every call of this kind is answered so, and does nothing. */
struct fake_fault {
    long http;
    const char *reply;
};

struct fake_key {
    char key[256], value[1024], lease[24]; /* as they came: base64, and decimal digits; no key: free */
    uint64_t revision;
};

struct fake_etcd {
    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t called;
    int fd;
    _Atomic int client; /* at most one */
    char url[64];
    struct fake_key keys[16];
    char lease[24];      /* "": none was granted, or it is gone */
    int64_t lease_until; /* ns */
    uint64_t revision, calls[FAKE_CALLS], expired;
    struct fake_fault faults[FAKE_CALLS];
    int64_t cost_ns; /* of each call: the request is late, or, of every second keepalive, the reply */
    void (*seen)(enum fake_call); /* on the server's thread, before a call is done */
};

static const char fake_no_space[] = "{\"error\":\"etcdserver: mvcc: database space exceeded\",\"code\":8,"
                                    "\"message\":\"etcdserver: mvcc: database space exceeded\"}";
static const char fake_no_leader[] =
    "{\"error\":\"etcdserver: no leader\",\"code\":14,\"message\":\"etcdserver: no leader\"}";
static const char fake_no_lease[] = "{\"error\":\"etcdserver: requested lease not found\",\"code\":5,"
                                    "\"message\":\"etcdserver: requested lease not found\"}";

/* On the server's thread, where cmocka's asserts do not reach. */
static void fake_need(bool well, const char *what)
{
    if (!well) {
        fprintf(stderr, "the etcd of this test needs %s\n", what);
        abort();
    }
}

static const char *fake_text(const cJSON *object, const char *name)
{
    const cJSON *v = json_get(object, name);
    return cJSON_IsString(v) ? v->valuestring : "";
}

static struct fake_key *fake_find(struct fake_etcd *f, const char *key)
{
    for (size_t i = 0; i < sizeof f->keys / sizeof *f->keys; i++)
        if (strcmp(f->keys[i].key, key) == 0)
            return &f->keys[i];
    return NULL;
}

static void fake_drop_lease(struct fake_etcd *f)
{
    for (size_t i = 0; i < sizeof f->keys / sizeof *f->keys; i++)
        if (f->keys[i].key[0] && strcmp(f->keys[i].lease, f->lease) == 0)
            f->keys[i].key[0] = 0;
    f->lease[0] = 0;
}

static void fake_expire(struct fake_etcd *f)
{
    if (f->lease[0] && clock_now_ns() >= f->lease_until) {
        f->expired++;
        fake_drop_lease(f);
    }
}

/* ---- calls ------------------------------------------------------------------------------------------------------------ */

static bool fake_holds(struct fake_etcd *f, const cJSON *compare)
{
    const struct fake_key *k = fake_find(f, fake_text(compare, "key"));
    const char *target = fake_text(compare, "target");
    if (strcmp(target, "VERSION") == 0)
        return !k == (strcmp(fake_text(compare, "version"), "0") == 0);
    fake_need(strcmp(target, "MOD") == 0, "a comparison of versions or revisions");
    return (k ? k->revision : 0) == strtoull(fake_text(compare, "mod_revision"), NULL, 10);
}

static void fake_put(struct fake_etcd *f, const cJSON *put)
{
    struct fake_key *k = fake_find(f, fake_text(put, "key"));
    k = k ? k : fake_find(f, "");
    fake_need(k, "room for a key");
    snprintf(k->key, sizeof k->key, "%s", fake_text(put, "key"));
    snprintf(k->value, sizeof k->value, "%s", fake_text(put, "value"));
    snprintf(k->lease, sizeof k->lease, "%s", fake_text(put, "lease"));
    k->revision = f->revision;
}

static void fake_range(struct fake_etcd *f, const cJSON *range, struct buf *out)
{
    const struct fake_key *k = fake_find(f, fake_text(range, "key"));
    buf_puts(out, "{\"response_range\":{\"header\":{}");
    if (k)
        buf_printf(out,
                   ",\"kvs\":[{\"key\":\"%s\",\"value\":\"%s\",\"mod_revision\":\"%llu\",\"lease\":\"%s\"}],"
                   "\"count\":\"1\"",
                   k->key, k->value, (unsigned long long)k->revision, k->lease);
    buf_puts(out, "}}");
}

static void fake_txn(struct fake_etcd *f, const cJSON *txn, struct buf *out)
{
    const cJSON *one;
    bool holds = true;
    cJSON_ArrayForEach(one, json_get(txn, "compare")) holds = holds && fake_holds(f, one);
    const cJSON *branch = json_get(txn, holds ? "success" : "failure");
    f->revision++;
    buf_printf(out, "{\"header\":{}%s,\"responses\":[", holds ? ",\"succeeded\":true" : "");
    cJSON_ArrayForEach(one, branch)
    {
        const cJSON *put = json_get(one, "requestPut");
        if (one != branch->child)
            buf_putc(out, ',');
        if (put) {
            fake_put(f, put);
            buf_puts(out, "{\"response_put\":{\"header\":{}}}");
        } else {
            fake_range(f, json_get(one, "requestRange"), out);
        }
    }
    buf_puts(out, "]}");
}

static long fake_lease_call(struct fake_etcd *f, enum fake_call call, const char *id, struct buf *out)
{
    bool ours = f->lease[0] && strcmp(f->lease, id) == 0;
    if (call == FAKE_KEEPALIVE) {
        f->lease_until = clock_now_ns() + 10 * (int64_t)NS_PER_S;
        buf_printf(out, "{\"result\":{\"ID\":\"%s\"%s}}", id, ours ? ",\"TTL\":\"10\"" : "");
        return 200;
    }
    if (call == FAKE_GRANT) {
        snprintf(f->lease, sizeof f->lease, "%s", id);
        f->lease_until = clock_now_ns() + 10 * (int64_t)NS_PER_S;
    } else if (ours) {
        fake_drop_lease(f);
    } else {
        buf_puts(out, fake_no_lease);
        return 404;
    }
    buf_puts(out, "{\"header\":{}}");
    return 200;
}

static long fake_answer(struct fake_etcd *f, const char *path, const char *body, struct buf *out)
{
    cJSON *j = NULL;
    enum fake_call call = strstr(path, "lease/grant")       ? FAKE_GRANT
                          : strstr(path, "lease/keepalive") ? FAKE_KEEPALIVE
                          : strstr(path, "lease/revoke")    ? FAKE_REVOKE
                          : strstr(body, "requestPut")      ? FAKE_WRITE
                                                            : FAKE_READ;
    long http = 200;
    fake_need(json_parse(&j, str_from(body), NULL) == ST_OK, "JSON");
    int64_t late_ns = call == FAKE_KEEPALIVE && f->calls[call] % 2 ? f->cost_ns : 0;
    atomic_fetch_add(&clock_ahead_ns, f->cost_ns - late_ns);
    fake_expire(f);
    if (f->seen)
        f->seen(call);
    if (f->faults[call].reply) {
        buf_puts(out, f->faults[call].reply);
        http = f->faults[call].http;
    } else if (call < FAKE_READ) {
        http = fake_lease_call(f, call, fake_text(j, "ID"), out);
    } else if (call == FAKE_WRITE && !f->lease[0]) {
        buf_puts(out, fake_no_lease);
        http = 404;
    } else {
        fake_txn(f, j, out);
    }
    atomic_fetch_add(&clock_ahead_ns, late_ns);
    json_free(j);
    f->calls[call]++;
    return http;
}

/* ---- the connection --------------------------------------------------------------------------------------------------- */

static bool fake_serve_one(struct fake_etcd *f, int fd)
{
    char in[1 << 16];
    size_t n = 0, body_bytes = 0;
    char *body = NULL;
    while (!body || n < (size_t)(body - in) + body_bytes) {
        ssize_t k = recv(fd, in + n, sizeof in - 1 - n, 0);
        if (k <= 0)
            return false;
        n += (size_t)k;
        in[n] = 0;
        char *end = body ? NULL : strstr(in, "\r\n\r\n");
        if (end) {
            body = end + 4;
            const char *length = strcasestr(in, "Content-Length:");
            fake_need(length, "a length");
            body_bytes = strtoull(length + 15, NULL, 10);
        }
    }
    struct buf reply = {0}, out = {0};
    body[-1] = 0;
    pthread_mutex_lock(&f->lock);
    long http = fake_answer(f, in, body, &reply);
    buf_printf(&out, "HTTP/1.1 %ld x\r\nContent-Length: %zu\r\n\r\n%s", http, reply.n, reply.p);
    bool sent = send(fd, out.p, out.n, MSG_NOSIGNAL) == (ssize_t)out.n;
    pthread_cond_broadcast(&f->called);
    pthread_mutex_unlock(&f->lock);
    buf_fini(&reply);
    buf_fini(&out);
    return sent;
}

static void *fake_serve(void *arg)
{
    struct fake_etcd *f = arg;
    for (int fd; (fd = accept(f->fd, NULL, NULL)) >= 0; close(fd)) {
        atomic_store(&f->client, fd);
        while (fake_serve_one(f, fd))
            ;
        atomic_store(&f->client, -1);
    }
    return NULL;
}

static void fake_start(struct fake_etcd *f)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    *f = (struct fake_etcd){
        .lock = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER, .revision = 1, .client = -1};
    f->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(bind(f->fd, (struct sockaddr *)&a, n) == 0 && listen(f->fd, 16) == 0 &&
                getsockname(f->fd, (struct sockaddr *)&a, &n) == 0);
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%u", ntohs(a.sin_port));
    assert_int_equal(pthread_create(&f->thread, NULL, fake_serve, f), 0);
}

/* Its client has left, or stands where a test failed. */
static void fake_stop(struct fake_etcd *f)
{
    shutdown(f->fd, SHUT_RDWR);
    shutdown(atomic_load(&f->client), SHUT_RDWR);
    pthread_join(f->thread, NULL);
    close(f->fd);
    atomic_store(&clock_ahead_ns, 0);
}

/* ---- asked by the test ------------------------------------------------------------------------------------------------ */

/* A fault without reply: none any more. */
static void fake_set_fault(struct fake_etcd *f, enum fake_call call, long http, const char *reply)
{
    pthread_mutex_lock(&f->lock);
    f->faults[call] = (struct fake_fault){http, reply};
    pthread_mutex_unlock(&f->lock);
}

static void fake_set_cost(struct fake_etcd *f, int64_t ns)
{
    pthread_mutex_lock(&f->lock);
    f->cost_ns = ns;
    pthread_mutex_unlock(&f->lock);
}

static void fake_set_seen(struct fake_etcd *f, void (*seen)(enum fake_call))
{
    pthread_mutex_lock(&f->lock);
    f->seen = seen;
    pthread_mutex_unlock(&f->lock);
}

static void fake_revoke(struct fake_etcd *f)
{
    pthread_mutex_lock(&f->lock);
    fake_drop_lease(f);
    pthread_mutex_unlock(&f->lock);
}

static uint64_t fake_calls(struct fake_etcd *f, enum fake_call call)
{
    pthread_mutex_lock(&f->lock);
    uint64_t n = f->calls[call];
    pthread_mutex_unlock(&f->lock);
    return n;
}

static void fake_await_calls(struct fake_etcd *f, enum fake_call call, uint64_t n)
{
    pthread_mutex_lock(&f->lock);
    while (f->calls[call] < n)
        pthread_cond_wait(&f->called, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

static uint32_t fake_n_keys(struct fake_etcd *f)
{
    uint32_t n = 0;
    pthread_mutex_lock(&f->lock);
    fake_expire(f);
    for (size_t i = 0; i < sizeof f->keys / sizeof *f->keys; i++)
        n += f->keys[i].key[0] != 0;
    pthread_mutex_unlock(&f->lock);
    return n;
}

#endif
