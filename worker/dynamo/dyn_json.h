/* dyn_json: JSON text -> MessagePack and back, so that everything else knows one form only.
 *
 * Owns     nothing.
 * Units    bytes.
 * States   -
 * Threads  any.
 * Errors   ST_EFORMAT: not JSON (or not MessagePack), invalid UTF-8, too deep; ST_ENOMEM, ST_ETOOBIG of the output buffer.
 *          The output is then incomplete.
 * Bounds   DYN_JSON_DEPTH levels. MessagePack is at most three times as long as its JSON.
 * Source   RFC 8259. Integers of 64 bits stay whole, with and without a sign, which is why this is not base/json.
 */
#ifndef STATOR_DYN_JSON_H
#define STATOR_DYN_JSON_H

#include "dyn_msgpack.h"

enum { DYN_JSON_DEPTH = 64 };

int dyn_json_to_msgpack(struct str json, struct buf *out);
/* Appends the value that `m` stands before, as compact JSON, and passes it. BIN and EXT have no JSON: ST_EFORMAT. */
int dyn_json_from_msgpack(struct dyn_msgpack *m, struct buf *out);

#endif
