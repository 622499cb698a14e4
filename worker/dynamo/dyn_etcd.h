/* dyn_etcd: the requests to etcd's JSON gateway that a worker needs, as text, and what the replies say.
 *
 * Owns     nothing.
 * Units    seconds. Numbers of 64 bits are decimal strings in the gateway's JSON.
 * States   -
 * Threads  any.
 * Errors   the writers: buf.failed. The readers: ST_EFORMAT for what is no such reply, ST_EIO with etcd's own words.
 * Bounds   O(length); replies are parsed by base/json.
 * Source   etcd v3 API over grpc-gateway, 3.4 and later.
 */
#ifndef STATOR_DYN_ETCD_H
#define STATOR_DYN_ETCD_H

#include "buf.h"
#include "dyn_store.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

void dyn_etcd_put_grant(struct buf *out, uint64_t lease, uint32_t ttl_s);
void dyn_etcd_put_lease(struct buf *out, uint64_t lease); /* of keepalive and revoke */
void dyn_etcd_put_login(struct buf *out, const char *user, const char *password);
/* Asks what stands under the records' keys: one transaction that reads, which etcd's log does not see. */
void dyn_etcd_put_read(struct buf *out, const struct dyn_record *r, uint32_t n);
/* Writes all records that do not stand there, unless one of those keys was changed since it had its revision (0: not there). */
void dyn_etcd_put_write(struct buf *out, const struct dyn_record *r, uint32_t n, const bool *stands,
                        const uint64_t *revisions, uint64_t lease);
void dyn_etcd_put_base64(struct buf *out, struct str s);

/* Of all: http 200 and no error inside. `code_out`: gRPC's number for the error, 0 = none was given. */
int dyn_etcd_check(struct str reply, long http, int64_t *code_out, struct err *e);
int dyn_etcd_take_keepalive(struct str reply, bool *alive_out, struct err *e);
int dyn_etcd_take_token(struct str reply, struct buf *token_out, struct err *e);
/* `stands`: the record is there as it is here, on our lease. ST_EIO where a key belongs to another lease. */
int dyn_etcd_take_found(struct str reply, const struct dyn_record *r, uint32_t n, uint64_t lease,
                        bool *stands, uint64_t *revisions, struct err *e);
int dyn_etcd_take_written(struct str reply, struct err *e); /* ST_EIO: a key was changed since */

#endif
