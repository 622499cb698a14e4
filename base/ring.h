/* ring: bounded queue of fixed-size messages, many producers, one consumer, with a coalesced eventfd wake-up.
 *
 * Owns     its slots and one eventfd.
 * Units    messages of `message_bytes`; capacity in messages, rounded up to a power of two.
 * States   -
 * Threads  push: any thread. pop, ring_fd, ring_sleep, ring_drain_fd: the consumer only.
 * Errors   push: ST_AGAIN when full (back-pressure: nothing grows).
 * Bounds   no allocation after create. A producer that is descheduled between claiming and filling a slot makes the
 *          consumer see "empty" until it continues; nobody spins.
 * Source   bounded MPMC queue of sequence-numbered slots (D. Vyukov), one consumer.
 */
#ifndef STATOR_RING_H
#define STATOR_RING_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring;

int ring_create(struct ring **out, uint32_t capacity, size_t message_bytes);
void ring_destroy(struct ring *r); /* NULL ok */
int ring_push(struct ring *r, const void *message);
/* A push that wakes nobody, for several messages in a row; ring_wake must follow. */
int ring_push_quiet(struct ring *r, const void *message);
void ring_wake(struct ring *r);
bool ring_pop(struct ring *r, void *message_out);

/* Sleeping consumer: call ring_sleep; when it returns true the ring was empty and the next push will make ring_fd
 * readable; when false, messages came meanwhile: pop first. After the fd was readable call ring_drain_fd. */
int ring_fd(const struct ring *r);
bool ring_sleep(struct ring *r);
void ring_drain_fd(struct ring *r);
/* Any thread: make the fd readable as a push would, without a message. */
void ring_kick(struct ring *r);

#endif
