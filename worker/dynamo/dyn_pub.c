/* libzmq is loaded by hand. Linked, it would bring twenty libraries and more than a millisecond to every start of the worker, of
 * which most never see a router. What is used of it is one socket type and nine functions; a PUB socket of our own would need
 * ZMTP's handshake, its subscription trie and a queue per subscriber, for no gain.
 *
 * Dynamo's own workers queue 100,000 messages for a subscriber that does not read: up to gigabytes, where messages carry a
 * thousand changes each. Whoever is 8,192 behind is told more quickly by asking for the tree. */
#include "dyn_pub.h"

#include "clock.h"
#include "dyn_msgpack.h"
#include "mem.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define ZMQ_CALLS(X)                                        \
    X(void *, ctx_new, (void))                              \
    X(int, ctx_term, (void *))                              \
    X(void *, socket, (void *, int))                        \
    X(int, close, (void *))                                 \
    X(int, setsockopt, (void *, int, const void *, size_t)) \
    X(int, getsockopt, (void *, int, void *, size_t *))     \
    X(int, bind, (void *, const char *))                    \
    X(int, send, (void *, const void *, size_t, int))       \
    X(const char *, strerror, (int))                        \
    X(int, errno, (void))

struct zmq {
#define X(type, name, args) type(*name##_) args;
    ZMQ_CALLS(X)
#undef X
};

struct dyn_pub {
    struct zmq zmq;
    void *library, *context, *socket;
    uint64_t publisher;
    uint16_t port;
    struct buf scratch;
};

static int load(struct dyn_pub *p, struct err *e)
{
    p->library = dlopen("libzmq.so.5", RTLD_NOW | RTLD_LOCAL);
    if (!p->library)
        return err_set(e, ST_EUNSUP, "KV events need ZeroMQ (Debian: libzmq5): %s", dlerror());
    struct {
        const char *name;
        void **to;
    } const calls[] = {
#define X(type, name, args) {"zmq_" #name, (void **)&p->zmq.name##_},
        ZMQ_CALLS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        *calls[i].to = dlsym(p->library, calls[i].name);
        if (!*calls[i].to)
            return err_set(e, ST_EUNSUP, "KV events: this libzmq has no %s", calls[i].name);
    }
    return ST_OK;
}

static int fail(struct dyn_pub *p, const char *what, struct err *e)
{
    return err_set(e, ST_EIO, "KV events: %s: %s", what, p->zmq.strerror_(p->zmq.errno_()));
}

static int set(struct dyn_pub *p, int option, int value)
{
    return p->zmq.setsockopt_(p->socket, option, &value, sizeof value);
}

static int open_socket(struct dyn_pub *p, const char *host, struct err *e)
{
    char address[DYN_PUB_ADDRESS_MAX];
    size_t n = sizeof address;
    bool v6 = host && strchr(host, ':');
    int k = snprintf(address, sizeof address, v6 && host[0] != '[' ? "tcp://[%s]:*" : "tcp://%s:*",
                     host ? host : "*");
    if (k < 0 || (size_t)k >= sizeof address)
        return err_set(e, ST_EINVAL, "KV events: the host's name is too long");
    p->context = p->zmq.ctx_new_();
    p->socket = p->context ? p->zmq.socket_(p->context, ZMQ_PUB) : NULL;
    if (!p->socket || set(p, ZMQ_LINGER, 0) || set(p, ZMQ_SNDHWM, DYN_PUB_QUEUED) || set(p, ZMQ_IPV6, v6) ||
        p->zmq.setsockopt_(p->socket, ZMQ_MAXMSGSIZE, &(int64_t){DYN_PUB_HEARD_MAX}, sizeof(int64_t)))
        return fail(p, "no socket", e);
    if (p->zmq.bind_(p->socket, address))
        return fail(p, address, e);
    if (p->zmq.getsockopt_(p->socket, ZMQ_LAST_ENDPOINT, address, &n) || !strrchr(address, ':'))
        return fail(p, "no address", e);
    p->port = (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
    return ST_OK;
}

int dyn_pub_create(struct dyn_pub **out, const char *host, uint64_t publisher, struct err *e)
{
    struct dyn_pub *p = mem_zalloc(1, sizeof *p);
    if (!p)
        return err_set(e, ST_ENOMEM, "KV events: no memory");
    p->publisher = publisher;
    int rc = load(p, e);
    if (rc == ST_OK)
        rc = open_socket(p, host, e);
    if (rc == ST_OK)
        *out = p;
    else
        dyn_pub_destroy(p);
    return rc;
}

/* The library stays mapped: its threads' last instructions may still run. */
void dyn_pub_destroy(struct dyn_pub *p)
{
    if (!p)
        return;
    if (p->socket)
        p->zmq.close_(p->socket);
    if (p->context)
        p->zmq.ctx_term_(p->context);
    buf_fini(&p->scratch);
    mem_free(p);
}

uint16_t dyn_pub_port(const struct dyn_pub *p)
{
    return p->port;
}

static void big_endian(uint8_t *to, uint64_t v, int n)
{
    for (int i = n - 1; i >= 0; i--, v >>= 8)
        to[i] = (uint8_t)v;
}

int dyn_pub_parts(struct buf *b, const char *topic, uint64_t publisher, uint64_t sequence, int64_t wall_ms,
                  struct str payload, struct str parts[4])
{
    uint8_t head[8 + 8 + 5] = {0};
    enum { BODY = sizeof head };
    buf_reset(b);
    buf_put(b, head, sizeof head);
    dyn_msgpack_put_map(b, 5);
    dyn_msgpack_put_key(b, "publisher_id");
    dyn_msgpack_put_uint(b, publisher);
    dyn_msgpack_put_key(b, "sequence");
    dyn_msgpack_put_uint(b, sequence);
    dyn_msgpack_put_key(b, "published_at");
    dyn_msgpack_put_uint(b, (uint64_t)wall_ms);
    dyn_msgpack_put_key(b, "topic");
    dyn_msgpack_put_key(b, topic);
    dyn_msgpack_put_key(b, "payload");
    dyn_msgpack_put_bin(b, payload.p, payload.n);
    if (b->failed)
        return b->failed;
    big_endian((uint8_t *)b->p, publisher, 8);
    big_endian((uint8_t *)b->p + 8, sequence, 8);
    b->p[16] = 1; /* the envelope's version */
    big_endian((uint8_t *)b->p + 17, b->n - BODY, 4);
    parts[0] = str_from(topic);
    parts[1] = (struct str){b->p, 8};
    parts[2] = (struct str){b->p + 8, 8};
    parts[3] = (struct str){b->p + 16, b->n - 16};
    return ST_OK;
}

void dyn_pub_send(struct dyn_pub *p, const char *topic, uint64_t sequence, struct str payload)
{
    struct str parts[4];
    if (dyn_pub_parts(&p->scratch, topic, p->publisher, sequence, clock_wall_ms(), payload, parts) != ST_OK)
        return;
    for (int i = 0; i < 4; i++)
        if (p->zmq.send_(p->socket, parts[i].p, parts[i].n, ZMQ_DONTWAIT | (i < 3 ? ZMQ_SNDMORE : 0)) < 0)
            return;
}
