/* etcd, through its JSON gateway: no gRPC. All records hang on one lease that is kept alive; when it runs out, with the worker or
 * with etcd, they are gone together. The lease has the number of the worker's instance, as Dynamo's own workers have it: granted
 * again after a loss it is the same one, so no record changes. Each round one transaction reads what stands under our keys, and a
 * second writes what is missing or other than here, all at once and only where nobody was faster. The usual round writes nothing:
 * etcd's log and disk are the deployment's, and a thousand workers share them.
 *
 * Servers are tried in turn, beginning with the one that answered last. */
#define _GNU_SOURCE
#include "dyn_etcd.h"
#include "dyn_store_state.h"

#include "clock.h"
#include "log.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

enum { SERVERS_MAX = 8 };

/* gRPC's numbers: DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNAVAILABLE, UNAUTHENTICATED. */
enum {
    TOO_LATE = 4,
    NO_SUCH_LEASE = 5,
    TOO_BUSY = 8,
    ALREADY_THERE = 9,
    UNAVAILABLE = 14,
    UNAUTHENTICATED = 16
};

struct etcd {
    struct dyn_curl *curl;
    char *list; /* the configured servers, cut in place */
    const char *servers[SERVERS_MAX];
    uint32_t n_servers, at;
    const char *user, *password;
    uint64_t lease;
    bool asked;       /* for the lease, at least once: it may live, whatever we were told */
    bool alive;       /* it did when we heard of it last */
    int64_t until_ns; /* when the call at hand has taken its time */
    uint64_t revisions[DYN_RECORDS_MAX]; /* of the records' keys, as found last */
    struct buf token, url, header, body, reply;
};

/* ---- calls ------------------------------------------------------------------------------------------------------------ */

/* What one member says of itself (without a leader, behind, overrun): another may do better. */
static bool is_members_own(int64_t code)
{
    return code == TOO_LATE || code == TOO_BUSY || code == UNAVAILABLE;
}

/* `body` to one path of one server after the other, until one answers. Each has its share of the time that is left. */
static int call_once(struct etcd *c, const char *path, int64_t *code, struct err *e)
{
    int st = err_set(e, ST_EIO, "etcd: no answer within %d ms", DYN_STORE_CALL_MS);
    *code = 0;
    if (c->body.failed)
        return err_set(e, c->body.failed, "etcd: no memory");
    for (uint32_t i = 0; i < c->n_servers; i++) {
        long http = 0;
        int64_t left_ms = (c->until_ns - clock_now_ns()) / NS_PER_MS / (c->n_servers - i);
        if (left_ms <= 0)
            return st;
        buf_reset(&c->url);
        buf_reset(&c->header);
        buf_printf(&c->url, "%s/v3/%s", c->servers[c->at], path);
        buf_printf(&c->header, "Authorization: %s", c->token.n ? c->token.p : "");
        if (c->url.failed || c->header.failed)
            return err_set(e, ST_ENOMEM, "etcd: no memory");
        st = dyn_curl_post(c->curl, c->url.p, c->token.n ? c->header.p : NULL, buf_str(&c->body),
                           (uint32_t)left_ms, &c->reply, &http, e);
        st = st ? st : dyn_etcd_check(buf_str(&c->reply), http, code, e);
        if (!st || (*code && !is_members_own(*code))) /* well, or etcd's considered answer */
            return st;
        c->at = (c->at + 1) % c->n_servers;
    }
    return st;
}

static int login(struct etcd *c, struct err *e)
{
    int64_t code;
    struct buf asked = c->body; /* what the call was about stays */
    c->body = (struct buf){0};
    buf_reset(&c->token);
    dyn_etcd_put_login(&c->body, c->user, c->password ? c->password : "");
    int st = call_once(c, "auth/authenticate", &code, e);
    st = st ? st : dyn_etcd_take_token(buf_str(&c->reply), &c->token, e);
    buf_fini(&c->body);
    c->body = asked;
    return st;
}

/* Tokens run out, and a restarted etcd has forgotten them. */
static int call(struct etcd *c, const char *path, int64_t *code, struct err *e)
{
    c->until_ns = clock_now_ns() + (int64_t)DYN_STORE_CALL_MS * NS_PER_MS;
    int st = c->user && c->token.n == 0 ? login(c, e) : ST_OK;
    st = st ? st : call_once(c, path, code, e);
    if (st && c->user && *code == UNAUTHENTICATED) {
        st = login(c, e);
        st = st ? st : call_once(c, path, code, e);
    }
    return st;
}

/* ---- the lease -------------------------------------------------------------------------------------------------------- */

/* Only etcd's word on the lease itself says that it is gone. A full etcd refuses to write and to grant, and still keeps alive
 * what it has. */
static int etcd_keep(void *ctx, bool *alive, struct err *e)
{
    struct etcd *c = ctx;
    int64_t code = 0;
    *alive = c->alive; /* as long as etcd does not say otherwise */
    if (!c->asked)
        return ST_OK;
    buf_reset(&c->body);
    dyn_etcd_put_lease(&c->body, c->lease);
    int st = call(c, "lease/keepalive", &code, e);
    st = st ? st : dyn_etcd_take_keepalive(buf_str(&c->reply), alive, e);
    if (st)
        return st;
    if (c->alive && !*alive)
        log_warn("dynamo", "discovery: etcd has lost our lease; registering again");
    c->alive = *alive;
    return ST_OK;
}

static int etcd_renew(void *ctx, struct err *e)
{
    struct etcd *c = ctx;
    int64_t code = 0;
    buf_reset(&c->body);
    dyn_etcd_put_grant(&c->body, c->lease, DYN_STORE_TTL_S);
    c->asked = true;
    int st = call(c, "lease/grant", &code, e);
    if (code == ALREADY_THERE) /* the reply to an earlier grant was lost */
        st = ST_OK;
    c->alive = !st;
    return st;
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

static int etcd_find(void *ctx, const struct dyn_record *r, uint32_t n, bool *stands, struct err *e)
{
    struct etcd *c = ctx;
    int64_t code = 0;
    buf_reset(&c->body);
    dyn_etcd_put_read(&c->body, r, n);
    int st = call(c, "kv/txn", &code, e);
    return st ? st : dyn_etcd_take_found(buf_str(&c->reply), r, n, c->lease, stands, c->revisions, e);
}

static int etcd_write(void *ctx, const struct dyn_record *r, uint32_t n, const bool *stands, struct err *e)
{
    struct etcd *c = ctx;
    int64_t code = 0;
    buf_reset(&c->body);
    dyn_etcd_put_write(&c->body, r, n, stands, c->revisions, c->lease);
    int st = call(c, "kv/txn", &code, e);
    return st ? st : dyn_etcd_take_written(buf_str(&c->reply), e);
}

static int etcd_withdraw(void *ctx, const struct dyn_record *r, uint32_t n, struct err *e)
{
    struct etcd *c = ctx;
    int64_t code = 0;
    (void)r;
    (void)n;
    if (!c->asked)
        return ST_OK;
    buf_reset(&c->body);
    dyn_etcd_put_lease(&c->body, c->lease);
    int st = call(c, "lease/revoke", &code, e);
    return code == NO_SUCH_LEASE ? ST_OK : st;
}

static void etcd_close(void *ctx)
{
    struct etcd *c = ctx;
    dyn_curl_close(c->curl);
    mem_free(c->list);
    buf_fini(&c->token);
    buf_fini(&c->url);
    buf_fini(&c->header);
    buf_fini(&c->body);
    buf_fini(&c->reply);
    mem_free(c);
}

/* "http://a:2379, b:2379" */
static int split_servers(struct etcd *c, const char *text, struct err *e)
{
    c->list = mem_dup(text, strlen(text));
    if (!c->list)
        return err_set(e, ST_ENOMEM, "etcd: no memory");
    for (char *at = c->list, *one; (one = strsep(&at, ", "));) {
        size_t n = strlen(one);
        while (n > 0 && one[n - 1] == '/')
            one[--n] = 0;
        if (n == 0)
            continue;
        if (c->n_servers == SERVERS_MAX)
            return err_set(e, ST_EINVAL, "--etcd-endpoints: more than %d servers", SERVERS_MAX);
        if (strncmp(one, "http://", 7) != 0 && strncmp(one, "https://", 8) != 0)
            return err_set(e, ST_EINVAL, "--etcd-endpoints: '%.100s' does not begin with http:// or https://",
                           one);
        c->servers[c->n_servers++] = one;
    }
    return c->n_servers ? ST_OK : err_set(e, ST_EINVAL, "--etcd-endpoints: no server in '%.100s'", text);
}

static int etcd_open(void **ctx, const struct dyn_store_options *o, struct err *e)
{
    struct etcd *c = mem_zalloc(1, sizeof *c);
    if (!c)
        return err_set(e, ST_ENOMEM, "etcd: no memory");
    *ctx = c;
    c->user = o->user;
    c->password = o->password;
    c->lease = o->instance;
    int st = split_servers(c, o->endpoints, e);
    return st ? st : dyn_curl_open(&c->curl, &o->tls, e);
}

const struct dyn_store_kind dyn_store_etcd = {
    .open = etcd_open,
    .keep = etcd_keep,
    .renew = etcd_renew,
    .find = etcd_find,
    .write = etcd_write,
    .withdraw = etcd_withdraw,
    .close = etcd_close,
};
