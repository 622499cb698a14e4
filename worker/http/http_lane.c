/* A place in a table is what crosses to the thread and back; the piece itself stays where the io thread put it. There are as
 * many places on the ring and in the queue as in the table, so only the table can be full. */
#include "http_lane.h"

#include "jobs.h"
#include "mem.h"
#include "ring.h"
#include "status.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

struct http_lane {
    struct jobs *jobs;
    struct ring *done;                            /* uint32_t: a place in pieces */
    struct http_lane_piece pieces[HTTP_LANE_MAX]; /* .work NULL = free */
};

int http_lane_create(struct http_lane **out)
{
    struct http_lane *l = mem_zalloc(1, sizeof *l);
    if (!l)
        return ST_ENOMEM;
    int st = ring_create(&l->done, HTTP_LANE_MAX, sizeof(uint32_t));
    if (!st)
        st = jobs_create(&l->jobs, HTTP_LANE_MAX, "stator-prompt");
    if (st) {
        http_lane_destroy(l);
        return st;
    }
    *out = l;
    return ST_OK;
}

void http_lane_destroy(struct http_lane *l)
{
    if (!l)
        return;
    jobs_destroy(l->jobs);
    ring_destroy(l->done);
    mem_free(l);
}

static void run(void *ctx, uint64_t arg)
{
    struct http_lane *l = ctx;
    uint32_t place = (uint32_t)arg;
    l->pieces[place].work(l->pieces[place].ctx);
    int st = ring_push(l->done, &place);
    assert(st == ST_OK);
    (void)st;
}

int http_lane_push(struct http_lane *l, const struct http_lane_piece *piece)
{
    uint32_t place = 0;
    while (place < HTTP_LANE_MAX && l->pieces[place].work)
        place++;
    if (place == HTTP_LANE_MAX)
        return ST_EBUSY;
    l->pieces[place] = *piece;
    int st = jobs_push(l->jobs, run, l, place);
    assert(st == ST_OK);
    (void)st;
    return ST_OK;
}

void http_lane_poll(struct http_lane *l)
{
    uint32_t place;
    while (ring_pop(l->done, &place)) {
        const struct http_lane_piece piece = l->pieces[place];
        l->pieces[place] = (struct http_lane_piece){0};
        piece.done(piece.ctx);
    }
}

bool http_lane_sleep(struct http_lane *l)
{
    return ring_sleep(l->done);
}

int http_lane_fd(const struct http_lane *l)
{
    return ring_fd(l->done);
}

void http_lane_drain_fd(struct http_lane *l)
{
    ring_drain_fd(l->done);
}
