/* What a frontend says on a response stream: any bytes, in any pieces. The stream ends when it says so or talks nonsense, its
 * owner is told once, and nothing is left of it. */
#include "clock.h"
#include "dyn_stream.h"
#include "log.h"
#include "mem.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_ended(void *ctx, enum dyn_ending how)
{
    assert(how == DYN_KILLED || how == DYN_LOST);
    *(int *)ctx += 1;
}

static int listen_for_answers(struct dyn_control *control)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&a, n) || listen(fd, 16) || getsockname(fd, (struct sockaddr *)&a, &n))
        abort();
    *control = (struct dyn_control){.id = "i", .subject = "s", .codec = DYN_CODEC_MSGPACK};
    snprintf(control->address, sizeof control->address, "127.0.0.1:%u", ntohs(a.sin_port));
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dyn_streams *set;
    static struct dyn_control control;
    static int listen_fd;
    const struct dyn_streams_options o = {
        .streams_max = 4, .bytes_max = 4096, .output_max = 1 << 20, .connect_ms = 10000, .stall_ms = 10000};
    struct dyn_stream *s;
    struct err e;
    int told = 0;
    if (!set) {
        log_set_level(LOG_ERROR);
        listen_fd = listen_for_answers(&control);
        if (dyn_streams_create(&set, &o))
            abort();
    }
    if (size < 1 || size > 16384)
        return 0;
    uint64_t live = mem_live();
    size_t piece = (size_t)data[0] * 8 + 1;
    if (dyn_stream_open(set, &control, &s, &e))
        abort();
    dyn_stream_own(s, on_ended, &told);
    dyn_stream_start(s, clock_now_ns());
    int fd = accept(listen_fd, NULL, NULL);
    for (size_t at = 1; at < size; at += piece) {
        if (send(fd, data + at, size - at < piece ? size - at : piece, MSG_NOSIGNAL) < 0)
            break;
        if (!told)
            dyn_stream_put(s, STR_LIT("\xc0"));
        dyn_streams_run(set, clock_now_ns());
        assert(told == (dyn_streams_count(set) == 0));
    }
    close(fd);
    for (int turns = 0; dyn_streams_count(set); turns++) {
        dyn_streams_run(set, clock_now_ns());
        assert(turns < 100000);
    }
    assert(told == 1 && mem_live() == live);
    return 0;
}
