/* heap: the ids 0..n-1, each in or out, and the least of those that are in, by (key, tie).
 *
 * Owns     its arrays. What an id stands for is the caller's.
 * Units    keys are the caller's; of two equal ones the smaller tie is less. Ties of equal keys should differ.
 * States   an id is out -> push -> in -> pop or remove -> out.
 * Threads  one at a time.
 * Errors   ST_ENOMEM from create. A push of an id that is in, or a removal of one that is not, is a bug.
 * Bounds   push, pop, remove and update are O(log n); peek, contains and size O(1). No allocation after create.
 * Source   d-ary heap with positions (Johnson, 1975).
 */
#ifndef STATOR_HEAP_H
#define STATOR_HEAP_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

#define HEAP_NONE UINT32_MAX

struct heap;

int heap_create(struct heap **out, uint32_t n, struct err *e); /* n may be 0 */
void heap_destroy(struct heap *h);                             /* NULL ok */

void heap_push(struct heap *h, uint32_t id, int64_t key, uint64_t tie);
uint32_t heap_peek(const struct heap *h); /* the least, or HEAP_NONE */
uint32_t heap_pop(struct heap *h);        /* likewise, and takes it out */
void heap_remove(struct heap *h, uint32_t id);
void heap_update(struct heap *h, uint32_t id, int64_t key, uint64_t tie); /* of one that is in */

bool heap_contains(const struct heap *h, uint32_t id);
uint32_t heap_size(const struct heap *h);
int64_t heap_key(const struct heap *h, uint32_t id); /* of one that is in */
uint64_t heap_tie(const struct heap *h, uint32_t id);

/* For tests and debug builds: no child is less than its parent, and each id is where its position says. */
bool heap_check(const struct heap *h);

#endif
