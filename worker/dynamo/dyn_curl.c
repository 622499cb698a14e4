/* libcurl brings some thirty libraries with it (TLS, LDAP, Kerberos...): linked, it would double the time from exec to main, from
 * 2.3 to 4.7 ms. Few deployments have etcd, so it is loaded where one is configured.
 *
 * Rejected: a client of our own. etcd is often behind TLS. */
#define CURL_DISABLE_TYPECHECK /* setopt is reached through a pointer */
#include "dyn_curl.h"

#include "mem.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

struct dyn_curl {
    struct dyn_curl_tls tls;
    void *library;
    CURL *easy;
    CURLcode (*global_init)(long flags);
    CURL *(*easy_init)(void);
    void (*easy_cleanup)(CURL *);
    void (*easy_reset)(CURL *);
    CURLcode (*easy_setopt)(CURL *, CURLoption, ...);
    CURLcode (*easy_getinfo)(CURL *, CURLINFO, ...);
    CURLcode (*easy_perform)(CURL *);
    const char *(*easy_strerror)(CURLcode);
    struct curl_slist *(*slist_append)(struct curl_slist *, const char *);
    void (*slist_free_all)(struct curl_slist *);
};

static int resolve(struct dyn_curl *c, struct err *e)
{
    const struct {
        void *at;
        const char *name;
    } functions[] = {
        {&c->global_init, "curl_global_init"},   {&c->easy_init, "curl_easy_init"},
        {&c->easy_cleanup, "curl_easy_cleanup"}, {&c->easy_reset, "curl_easy_reset"},
        {&c->easy_setopt, "curl_easy_setopt"},   {&c->easy_getinfo, "curl_easy_getinfo"},
        {&c->easy_perform, "curl_easy_perform"}, {&c->easy_strerror, "curl_easy_strerror"},
        {&c->slist_append, "curl_slist_append"}, {&c->slist_free_all, "curl_slist_free_all"},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        *(void **)functions[i].at = dlsym(c->library, functions[i].name);
        if (!*(void **)functions[i].at)
            return err_set(e, ST_EUNSUP, "libcurl.so.4 has no %s", functions[i].name);
    }
    return ST_OK;
}

static bool is_pem(const char *text)
{
    return strstr(text, "-----BEGIN ");
}

/* A file that is not there would be found missing at each call, in words that do not name it. */
static int check_files(const struct dyn_curl_tls *t, struct err *e)
{
    const char *const files[] = {t->ca, t->cert, t->key};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i] && !is_pem(files[i]) && access(files[i], R_OK))
            return err_set(e, ST_EINVAL, "TLS: %.150s: %s", files[i], strerror(errno));
    return !t->cert == !t->key
               ? ST_OK
               : err_set(e, ST_EINVAL, "TLS: a certificate of ours needs its key, and a key its certificate");
}

int dyn_curl_open(struct dyn_curl **out, const struct dyn_curl_tls *tls, struct err *e)
{
    struct dyn_curl *c = mem_zalloc(1, sizeof *c);
    if (!c)
        return err_set(e, ST_ENOMEM, "libcurl: no memory");
    c->tls = *tls;
    int st = check_files(tls, e);
    c->library = st ? NULL : dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!st)
        st = c->library ? resolve(c, e) : err_set(e, ST_EUNSUP, "etcd needs libcurl: %s", dlerror());
    if (!st && (c->global_init(CURL_GLOBAL_DEFAULT) || !(c->easy = c->easy_init())))
        st = err_set(e, ST_ENOMEM, "libcurl does not start");
    if (st)
        dyn_curl_close(c);
    else
        *out = c;
    return st;
}

/* The library stays: those below it are not all made to be unloaded. */
void dyn_curl_close(struct dyn_curl *c)
{
    if (c && c->easy)
        c->easy_cleanup(c->easy);
    mem_free(c);
}

/* Text goes in as it is: a key that came in a variable is on no disk, and shall not be put there. */
static void set_pem(struct dyn_curl *c, CURLoption file, CURLoption text, const char *value)
{
    if (value && is_pem(value)) {
        struct curl_blob blob = {.data = (void *)value, .len = strlen(value), .flags = CURL_BLOB_NOCOPY};
        c->easy_setopt(c->easy, text, &blob);
    } else if (value) {
        c->easy_setopt(c->easy, file, value);
    }
}

static size_t take(char *p, size_t size, size_t n, void *user)
{
    return buf_put(user, p, size * n) ? 0 : size * n;
}

/* A server that asks for a certificate refuses behind the handshake, and often its alert is lost with the connection. */
static const char *no_proof(const struct dyn_curl *c, const char *url, CURLcode code)
{
    bool broken = code == CURLE_SSL_CONNECT_ERROR || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR ||
                  code == CURLE_GOT_NOTHING;
    return broken && !c->tls.cert && strncmp(url, "https:", 6) == 0 ? " (it may ask for a certificate, and we have none)" : "";
}

int dyn_curl_post(struct dyn_curl *c, const char *url, const char *header, struct str body,
                  uint32_t timeout_ms, struct buf *reply, long *http_out, struct err *e)
{
    struct curl_slist *headers = c->slist_append(NULL, "Content-Type: application/json");
    if (headers && header) {
        struct curl_slist *more = c->slist_append(headers, header);
        if (!more)
            c->slist_free_all(headers);
        headers = more;
    }
    if (!headers)
        return err_set(e, ST_ENOMEM, "libcurl: no memory");
    char why[CURL_ERROR_SIZE] = ""; /* which alert of TLS it was, and the like; not always there */
    buf_reset(reply);
    reply->limit = DYN_CURL_REPLY_MAX;
    c->easy_reset(c->easy); /* keeps connections */
    c->easy_setopt(c->easy, CURLOPT_URL, url);
    c->easy_setopt(c->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    c->easy_setopt(c->easy, CURLOPT_PROXY, "");
    set_pem(c, CURLOPT_CAINFO, CURLOPT_CAINFO_BLOB, c->tls.ca);
    set_pem(c, CURLOPT_SSLCERT, CURLOPT_SSLCERT_BLOB, c->tls.cert);
    set_pem(c, CURLOPT_SSLKEY, CURLOPT_SSLKEY_BLOB, c->tls.key);
    c->easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
    c->easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    c->easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE, (long)body.n);
    c->easy_setopt(c->easy, CURLOPT_POSTFIELDS, body.p);
    c->easy_setopt(c->easy, CURLOPT_HTTPHEADER, headers);
    c->easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, take);
    c->easy_setopt(c->easy, CURLOPT_WRITEDATA, reply);
    c->easy_setopt(c->easy, CURLOPT_ERRORBUFFER, why);
    CURLcode code = c->easy_perform(c->easy);
    c->easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, http_out);
    c->slist_free_all(headers);
    if (reply->failed)
        return err_set(e, reply->failed, "%.150s: the reply is longer than %d bytes", url,
                       DYN_CURL_REPLY_MAX);
    if (!code)
        return ST_OK;
    return err_set(e, ST_EIO, "%.120s: %.100s%s", url, why[0] ? why : c->easy_strerror(code), no_proof(c, url, code));
}
