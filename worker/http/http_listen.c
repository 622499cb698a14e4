/* The socket is made here and handed to libmicrohttpd ready: its own start reports a bind failure as "no daemon". */
#define _GNU_SOURCE
#include "http_listen.h"

#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct addrinfo *resolve(const char *host, const char *port)
{
    const struct addrinfo want = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    return getaddrinfo(host && host[0] ? host : NULL, port, &want, &list) ? NULL : list;
}

int http_listen(const char *host, uint16_t port, int *fd_out, uint16_t *port_out, struct err *e)
{
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo *list = resolve(host, service);
    if (!list)
        return err_set(e, ST_EINVAL, "host \"%s\": cannot be resolved", host ? host : "");
    int on = 1, why = 0, fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, 1024))
        why = errno;
    freeaddrinfo(list);
    struct sockaddr_storage at = {0};
    socklen_t n = sizeof at;
    if (!why && getsockname(fd, (struct sockaddr *)&at, &n))
        why = errno;
    if (why) {
        if (fd >= 0)
            close(fd);
        if (why == EADDRINUSE)
            return err_set(e, ST_EIO, "%s:%u: the port is in use by another program", host, port);
        if (why == EACCES)
            return err_set(e, ST_EIO, "%s:%u: no permission to use this port", host, port);
        return err_set(e, ST_EIO, "%s:%u: cannot listen: %s", host, port, strerror(why));
    }
    in_port_t got = at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                             : ((struct sockaddr_in *)&at)->sin_port;
    *port_out = ntohs(got);
    *fd_out = fd;
    return ST_OK;
}

bool http_host_is_known(const char *host)
{
    struct addrinfo *list = resolve(host, "0");
    if (list)
        freeaddrinfo(list);
    return list != NULL;
}

/* Judges the address that would be bound, so that "127.1" or "0" are seen for what they are. */
static bool bound_address_is(const char *host, bool (*v4)(uint32_t), bool (*v6)(const struct in6_addr *))
{
    struct addrinfo *list = resolve(host, "0");
    bool yes = false;
    if (list && list->ai_family == AF_INET)
        yes = v4(ntohl(((struct sockaddr_in *)(void *)list->ai_addr)->sin_addr.s_addr));
    else if (list && list->ai_family == AF_INET6)
        yes = v6(&((struct sockaddr_in6 *)(void *)list->ai_addr)->sin6_addr);
    if (list)
        freeaddrinfo(list);
    return yes;
}

static bool v4_loopback(uint32_t a)
{
    return a >> 24 == 127;
}

static bool v6_loopback(const struct in6_addr *a)
{
    return IN6_IS_ADDR_LOOPBACK(a);
}

static bool v4_wildcard(uint32_t a)
{
    return a == 0;
}

static bool v6_wildcard(const struct in6_addr *a)
{
    return IN6_IS_ADDR_UNSPECIFIED(a);
}

bool http_host_is_loopback(const char *host)
{
    return bound_address_is(host, v4_loopback, v6_loopback);
}

bool http_host_is_wildcard(const char *host)
{
    return bound_address_is(host, v4_wildcard, v6_wildcard);
}
