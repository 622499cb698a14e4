/* grammar_vocab: the tokens of a model as grammars see them: a tree of their bytes.
 *
 * Owns     the tree, which is made at first use. Borrows whoever knows the tokens' bytes.
 * Units    token ids, bytes.
 * States   create (cheap) -> ready (once; makes the tree) -> destroy, after the last grammar that was made for it.
 * Threads  any; two threads that need the tree at once both make it, and one of them throws his away.
 * Errors   ST_ENOMEM.
 * Bounds   tokens of more than GRAMMAR_TOKEN_BYTES_MAX bytes are in no grammar.
 * Source   -
 */
#ifndef STATOR_GRAMMAR_VOCAB_H
#define STATOR_GRAMMAR_VOCAB_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

enum { GRAMMAR_TOKEN_BYTES_MAX = 256 };

struct grammar_vocab;

/* What a token adds to the text; empty for those that are no text (control tokens): no grammar allows these. Valid as long as
 * the vocabulary; called from any thread. */
typedef struct str grammar_token_bytes(const void *ctx, uint32_t token);

int grammar_vocab_create(struct grammar_vocab **out, uint32_t n_tokens, grammar_token_bytes *bytes,
                         const void *ctx);
void grammar_vocab_destroy(struct grammar_vocab *v); /* NULL ok */
int grammar_vocab_ready(const struct grammar_vocab *v, struct err *e);
struct str grammar_vocab_bytes(const struct grammar_vocab *v,
                               uint32_t token); /* empty beyond the vocabulary */

/* The tree in the order of a walk from its root; node 0 is the root. A node's tokens are tokens[first .. next node's first). */
struct grammar_trie_node {
    uint32_t skip; /* the node behind all that are below this one */
    uint32_t first;
    uint16_t depth; /* bytes from the root */
    uint8_t byte;
};

struct grammar_trie {
    struct grammar_trie_node *nodes; /* [n_nodes + 1], the last one is the end */
    uint32_t *tokens;
    uint32_t n_nodes, n_tokens; /* n_tokens: size of the vocabulary */
    /* What holds inside of every JSON string: */
    uint32_t
        *inside; /* [n_tokens / 32 + 1] bits of the tokens that go on in it, or end it with their last byte */
    uint32_t *leaves; /* [n_leaves] nodes at which the string ends, and below which there are more */
    uint32_t n_leaves;
};

const struct grammar_trie *grammar_vocab_trie(const struct grammar_vocab *v); /* NULL before ready */

#endif
