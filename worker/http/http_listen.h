/* http_listen: a listening TCP socket with errors that say what to do.
 *
 * Owns     nothing; the caller closes the socket.
 * Units    -
 * States   -
 * Threads  any.
 * Errors   ST_EINVAL (host cannot be resolved), ST_EIO ("127.0.0.1:8099: the port is in use").
 * Bounds   name resolution may block.
 * Source   -
 */
#ifndef STATOR_HTTP_LISTEN_H
#define STATOR_HTTP_LISTEN_H

#include "status.h"

#include <stdint.h>

int http_listen(const char *host, uint16_t port, int *fd_out, uint16_t *port_out, struct err *e);

#endif
