/* grammar_mask: which tokens may come next.
 *
 * Owns     a walk owns scratch memory.
 * Units    bit t of word t / 32 is token t.
 * States   -
 * Threads  one owner per walk.
 * Errors   ST_ENOMEM (create).
 * Bounds   no allocation in grammar_mask. Time is linear in the tokens' bytes that the grammar goes along with, and small inside
 *          of strings, whose tokens are known beforehand.
 * Source   the tree of tokens and the known tokens of context-free places: XGrammar (Dong et al. 2024).
 */
#ifndef STATOR_GRAMMAR_MASK_H
#define STATOR_GRAMMAR_MASK_H

#include "grammar_machine.h"
#include "grammar_vocab.h"

struct grammar_walk;

int grammar_walk_create(struct grammar_walk **out);
void grammar_walk_destroy(struct grammar_walk *w); /* NULL ok */

/* Sets the bits of the tokens that may follow, and clears all others below n_bits. The state's grammar has a vocabulary. */
void grammar_mask(const struct grammar_state *s, struct grammar_walk *w, uint32_t *bits, uint32_t n_bits);
/* Takes a token; false: it may not follow, and nothing has changed. */
bool grammar_push_token(struct grammar_state *s, uint32_t token);

/* For grammar_vocab.c: fills in what holds inside of strings. */
int grammar_mask_inside(struct grammar_trie *t);

#endif
