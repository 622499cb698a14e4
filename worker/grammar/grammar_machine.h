/* grammar_machine: a run of a grammar over a text, byte by byte.
 *
 * A grammar may be ambiguous, so a run follows several paths at once; each is a node and the nodes to go on at when its rule and
 * those around it end. Whatever state a run is in, some text leads to its end.
 *
 * Owns     nothing: a state is plain data and may be copied.
 * Units    bytes.
 * States   begin -> push*; a push that is refused changes nothing.
 * Threads  any; one owner per state.
 * Errors   none.
 * Bounds   GRAMMAR_PATHS_MAX paths: of more alternatives at one point those that come last are not followed.
 * Source   -
 */
#ifndef STATOR_GRAMMAR_MACHINE_H
#define STATOR_GRAMMAR_MACHINE_H

#include "buf.h"
#include "grammar.h"

enum { GRAMMAR_PATHS_MAX = 128 };

struct grammar_path {
    uint16_t node, depth;
    uint16_t stack[GRAMMAR_DEPTH_MAX]; /* [depth] */
};

struct grammar_state {
    const struct grammar *grammar;
    uint32_t n;
    struct grammar_path paths[GRAMMAR_PATHS_MAX]; /* [n] */
};

void grammar_begin(struct grammar_state *s, const struct grammar *g);
bool grammar_push(struct grammar_state *s, uint8_t byte);         /* false: no text goes on like that */
bool grammar_push_text(struct grammar_state *s, struct str text); /* all of it, or nothing */
bool grammar_can_end(const struct grammar_state *s);
bool grammar_must_end(const struct grammar_state *s); /* there, and nothing may follow */

/* For grammar_mask.c: a set of paths in the caller's memory. */
struct grammar_paths {
    struct grammar_path *at; /* [cap] */
    uint32_t n, cap;
    uint32_t reach; /* the most stack that a path needed, or would have */
};
/* Appends this path, or what it comes to without consuming a byte. */
void grammar_paths_add(struct grammar_paths *s, const struct grammar_net *g, const struct grammar_path *p);
/* Appends the paths that `n` paths come to over one byte. */
void grammar_paths_step(struct grammar_paths *out, const struct grammar_net *g,
                        const struct grammar_path *from, uint32_t n, uint8_t byte);

#endif
