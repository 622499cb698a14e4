/* grammar: what a generated text must look like, as an automaton over bytes.
 *
 * A grammar is a set of rules; a rule is a small automaton whose edges consume a byte of a range or call a rule. A text is in the
 * grammar if the root's automaton can run over it. Nodes carry what a run needs to know: their edges, whether their rule may
 * end there, and how much stack finishing the rule takes at least.
 *
 * Owns     its nodes and edges, and its own memory by a count of references. Borrows the vocabulary.
 * Units    bytes; nodes and edges are numbers.
 * States   made by grammar_schema.h with one reference; get and put; freed with the last one. Immutable.
 * Threads  any number of readers; get and put from any thread.
 * Errors   -
 * Bounds   GRAMMAR_NODES_MAX nodes, GRAMMAR_EDGES_MAX edges, GRAMMAR_DEPTH_MAX calls within each other. Making one takes
 *          GRAMMAR_STEPS_MAX steps at most: looks at a name or an alternative in search of another.
 * Source   recursive transition networks (Woods 1970).
 */
#ifndef STATOR_GRAMMAR_H
#define STATOR_GRAMMAR_H

#include <stdbool.h>
#include <stdint.h>

struct grammar;
struct grammar_vocab;

enum {
    GRAMMAR_NODES_MAX = 40000,
    GRAMMAR_EDGES_MAX = 1 << 18,
    GRAMMAR_DEPTH_MAX = 30,
    GRAMMAR_STEPS_MAX = 1 << 22
};

struct grammar_edge {
    uint16_t to;
    uint16_t call;  /* start of a rule that is run before `to`; bytes: not used */
    uint8_t lo, hi; /* bytes: the range */
};

struct grammar_node {
    uint32_t first; /* edge: those of bytes, then the calls */
    uint16_t n_bytes, n_calls;
    uint8_t height; /* calls within each other that reaching the rule's end takes at least */
    bool final;
};

/* Plain data for those who run it (grammar_machine.c, grammar_mask.c). */
struct grammar_net {
    const struct grammar_node *nodes;
    const struct grammar_edge *edges;
    uint32_t n_nodes, n_edges;
    uint16_t start;
};

struct grammar *grammar_get(struct grammar *g); /* one more reference */
void grammar_put(struct grammar *g);            /* NULL ok */
const struct grammar_net *grammar_net(const struct grammar *g);
const struct grammar_vocab *grammar_words(const struct grammar *g); /* NULL: none was given */

#endif
