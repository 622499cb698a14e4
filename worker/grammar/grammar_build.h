/* grammar_build: grammars drawn node by node. For this room only.
 *
 * Owns     the builder's lists until grammar_build_end or _fini.
 * Units    node numbers; those of the basic rules are the same in every grammar.
 * States   init -> node, byte, skip, call ... -> end | fini. After a failure (`status`) all calls do nothing.
 * Threads  one owner.
 * Errors   ST_ENOMEM; ST_EINVAL: too large, without an end, or a rule that calls itself before it consumes a byte.
 * Bounds   grammar.h.
 * Source   RFC 8259 (strings, numbers), RFC 3629 (UTF-8).
 */
#ifndef STATOR_GRAMMAR_BUILD_H
#define STATOR_GRAMMAR_BUILD_H

#include "buf.h"
#include "grammar.h"
#include "status.h"

struct grammar_draft {
    struct grammar_draft_node *nodes; /* [cap_nodes] */
    struct grammar_draft_edge *edges; /* [cap_edges] */
    uint32_t n_nodes, cap_nodes, n_edges, cap_edges, n_steps;
    int status;
};

/* Starts of the basic rules, in every grammar. */
enum { GRAMMAR_STRING = 0, GRAMMAR_STRING_BODY = 1 };
struct grammar_basics {
    uint16_t string, number, integer, value, object, array;
};

int grammar_draft_init(struct grammar_draft *d, struct grammar_basics *b); /* draws the basic rules */
void grammar_draft_fini(struct grammar_draft *d);

uint16_t grammar_draft_node(struct grammar_draft *d);
void grammar_draft_final(struct grammar_draft *d, uint16_t node); /* its rule may end here */
void grammar_draft_bytes(struct grammar_draft *d, uint16_t from, uint8_t lo, uint8_t hi, uint16_t to);
void grammar_draft_skip(struct grammar_draft *d, uint16_t from, uint16_t to); /* consumes nothing */
void grammar_draft_call(struct grammar_draft *d, uint16_t from, uint16_t rule, uint16_t to);

/* These return the node behind what they drew. */
uint16_t grammar_draft_text(struct grammar_draft *d, uint16_t from, struct str text);
uint16_t grammar_draft_byte(struct grammar_draft *d, uint16_t from, char c);
uint16_t grammar_draft_comma(struct grammar_draft *d, uint16_t from); /* and a space, or not */
uint16_t grammar_draft_colon(struct grammar_draft *d, uint16_t from);
/* Adds a text to a tree of texts: beginnings that were drawn before are shared. All nodes below `root` must be the tree's. */
uint16_t grammar_draft_branch(struct grammar_draft *d, uint16_t root, struct str text);
/* One character of a JSON string, as it stands or escaped. */
void grammar_draft_char(struct grammar_draft *d, uint16_t from, uint16_t to);
/* One character that needs no escape. The beginnings that `from` has edges for already are left to those. */
void grammar_draft_plain(struct grammar_draft *d, uint16_t from, uint16_t to);
bool grammar_draft_has(struct grammar_draft *d, uint16_t from, uint8_t byte); /* an edge for this byte */
/* What grows faster than its schema is paid for: false when there was too much of it, and the draft has failed. */
bool grammar_draft_spend(struct grammar_draft *d, uint32_t steps);

/* The grammar with this root, and the end of the draft, whatever comes of it. */
int grammar_draft_end(struct grammar_draft *d, uint16_t root, const struct grammar_vocab *vocab,
                      struct grammar **out, struct err *e);

#endif
