/* dyn_conns: frontends' connections to the request plane: bytes come in and are cut into frames, acks go out.
 *
 * Owns     the listening socket, the connections and an epoll set.
 * Units    bytes, ns.
 * States   create -> run, each turn of the io loop -> destroy.
 * Threads  the io thread; create before it runs.
 * Errors   create: ST_ENOMEM, ST_EIO; the listening socket then stays the caller's. A peer's errors end its connection and are
 *          logged, limited.
 * Bounds   `conns_max` connections; when all places are taken, one goes for the newcomer: who never had a request taken before
 *          all others, then who has not had one for longest. `input_max` bytes of frames that have not come whole, in all
 *          connections together: beyond it, who holds most goes. A frame that has begun, and acks that are not read, end the
 *          connection after `frame_ms`. A turn takes DYN_FRAMES_PER_TURN frames of each connection, and none while acks wait; it
 *          ends with the frame that is at hand after DYN_TURN_MS, and who was not served then comes first in the next.
 * Source   NVIDIA Dynamo 1.6.1 on the wire: request frames and acks.
 */
#ifndef STATOR_DYN_CONNS_H
#define STATOR_DYN_CONNS_H

#include "buf.h"
#include "dyn_frame.h"

#include <stdint.h>

enum { DYN_FRAMES_PER_TURN = 32, DYN_TURN_MS = 10 };

/* What became of a frame. LARGE: it was taken, and was so much work that the connection's turn is over. */
enum dyn_fate { DYN_FRAME_REFUSED, DYN_FRAME_TAKEN, DYN_FRAME_LARGE };

struct dyn_conns_options {
    int listen_fd; /* bound, listening, non-blocking; taken when create is well */
    uint32_t conns_max, frame_ms;
    size_t input_max;
    /* Appends one ack. Not called for frames that are none. */
    enum dyn_fate (*frame)(void *ctx, const struct dyn_frame *f, struct buf *ack);
    void *ctx;
};

struct dyn_conns;

int dyn_conns_create(struct dyn_conns **out, const struct dyn_conns_options *o);
void dyn_conns_destroy(struct dyn_conns *set); /* NULL ok */
int dyn_conns_fd(const struct dyn_conns *set); /* an epoll set; readable when run has something to do */
/* Does what is ready; ms until it must be called again even if the fd stays silent, -1 = never. */
int dyn_conns_run(struct dyn_conns *set, int64_t now_ns);
uint32_t dyn_conns_count(const struct dyn_conns *set);

#endif
