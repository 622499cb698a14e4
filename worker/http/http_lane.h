/* http_lane: work too long for the io thread, done beside it, one piece after the other.
 *
 * Owns     its thread and the ring on which the thread tells what is done.
 * Units    pieces of work.
 * States   create -> (push, poll)* -> destroy, which waits for what is under way; its `done` is not called any more.
 * Threads  the io thread; `work` alone runs on the lane.
 * Errors   push: ST_EBUSY when HTTP_LANE_MAX pieces wait.
 * Bounds   no allocation after create.
 * Source   -
 */
#ifndef STATOR_HTTP_LANE_H
#define STATOR_HTTP_LANE_H

#include <stdbool.h>

enum { HTTP_LANE_MAX = 64 };

struct http_lane;

/* Between push and `done` nobody else touches what `ctx` stands for. */
struct http_lane_piece {
    void (*work)(void *ctx);
    void (*done)(void *ctx); /* on the io thread, within poll */
    void *ctx;
};

int http_lane_create(struct http_lane **out);
void http_lane_destroy(struct http_lane *l); /* NULL ok */
int http_lane_push(struct http_lane *l, const struct http_lane_piece *piece);
void http_lane_poll(struct http_lane *l);
bool http_lane_sleep(struct http_lane *l); /* true: nothing is done, and the fd will tell */
int http_lane_fd(const struct http_lane *l);
void http_lane_drain_fd(struct http_lane *l);

#endif
