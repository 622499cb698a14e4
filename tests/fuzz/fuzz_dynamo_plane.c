/* A connection to the request plane: any bytes, in any pieces. There are as many acks as whole frames, whatever the pieces;
 * nothing is kept of a connection that is gone; requests are refused or parsed, never answered: the address in them is the
 * input's. */
#include "clock.h"
#include "dyn_frame.h"
#include "dyn_plane.h"
#include "dyn_request.h"
#include "log.h"
#include "mem.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct dyn_plane *plane;
static struct sockaddr_in address;
static uint64_t live; /* allocations of the plane at rest */

static enum dyn_answer call(void *ctx, const struct dyn_call *c, struct err *why)
{
    static const struct dyn_request_limits limits = {.context_length = 512, .vocab_size = 1000};
    struct dyn_request r = {0};
    (void)ctx;
    int st = dyn_request_parse(&r, c->body, c->n_body, &limits, why);
    assert(!st == !why->text[0]);
    dyn_request_fini(&r);
    return st ? DYN_UNAVAILABLE : DYN_OVERLOADED;
}

static void start(void)
{
    socklen_t n = sizeof address;
    struct err e;
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct dyn_plane_options o = {.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    log_set_level(LOG_ERROR);
    if (bind(o.listen_fd, (struct sockaddr *)&address, n) || listen(o.listen_fd, 16) ||
        getsockname(o.listen_fd, (struct sockaddr *)&address, &n) || dyn_plane_create(&plane, &o, &e) ||
        dyn_plane_serve(plane, &(struct dyn_endpoint){.path = "p", .call = call}))
        abort();
    live = mem_live();
}

/* Whole frames up to the first thing that is none. */
static size_t count_frames(const char *p, size_t n, bool *broken)
{
    size_t frames = 0;
    struct dyn_frame f;
    int st = ST_AGAIN;
    for (size_t at = 0; at < n && (st = dyn_frame_parse(&f, p + at, n - at)) == ST_OK; at += f.bytes)
        frames++;
    *broken = st == ST_EFORMAT;
    return frames;
}

/* Whole acks among what came. */
static size_t count_acks(const uint8_t *p, size_t n)
{
    size_t acks = 0;
    for (size_t at = 0; n - at >= 4; acks++) {
        size_t length = (size_t)p[at] << 24 | (size_t)p[at + 1] << 16 | (size_t)p[at + 2] << 8 | p[at + 3];
        assert(length > 0 && length < 2048 && n - at >= 4 + length);
        at += 4 + length;
    }
    return acks;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t got[1 << 20];
    size_t n_got = 0;
    bool broken;
    if (!plane)
        start();
    if (size < 2 || size > 8192)
        return 0;
    size_t piece = (size_t)data[0] * 8 + 1, frames;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        abort();
    data++;
    size--;
    frames = count_frames((const char *)data, size, &broken);
    dyn_plane_run(plane, clock_now_ns());
    for (size_t at = 0; at < size; at += piece) {
        if (send(fd, data + at, size - at < piece ? size - at : piece, MSG_NOSIGNAL) < 0)
            break;
        dyn_plane_run(plane, clock_now_ns());
    }
    struct pollfd work = {.fd = dyn_plane_fd(plane), .events = POLLIN};
    for (int idle = 0; idle < 2000 && !broken && count_acks(got, n_got) < frames;) {
        bool again = dyn_plane_run(plane, clock_now_ns()) == 0;
        idle += !again && poll(&work, 1, 1) == 0; /* the kernel may still be on its way */
        ssize_t n = recv(fd, got + n_got, sizeof got - n_got, MSG_DONTWAIT);
        n_got += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    for (int turns = 0; dyn_plane_conns(plane); turns++) {
        dyn_plane_run(plane, clock_now_ns());
        assert(turns < 100000);
    }
    if (!broken) /* then a reset may overtake acks */
        assert(count_acks(got, n_got) == frames);
    assert(mem_live() <= live + 1 && dyn_plane_idle(plane)); /* the scratch for JSON bodies stays */
    return 0;
}
