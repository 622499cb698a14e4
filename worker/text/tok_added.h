/* tok_added: finding added tokens ("<|im_end|>") in a text, leftmost first, longest among those.
 *
 * Owns     copies of the contents.
 * Units    bytes; ids.
 * States   zeroed -> add* -> seal -> read only -> fini.
 * Threads  any number of readers after seal.
 * Errors   ST_ENOMEM, ST_ETOOBIG.
 * Bounds   TOK_ADDED_MAX tokens; one find costs O(longest token * log tokens) per byte looked at.
 * Source   Hugging Face tokenizers, tokenizer/added_vocabulary.rs.
 */
#ifndef STATOR_TOK_ADDED_H
#define STATOR_TOK_ADDED_H

#include "buf.h"

#include <stdbool.h>
#include <stdint.h>

enum { TOK_ADDED_MAX = 1 << 20 };

struct tok_added_one {
    struct str text; /* owned, until fini */
    int32_t id;
    bool special, lstrip, rstrip, single_word;
};

struct tok_added {
    struct tok_added_one *one; /* [n], by bytes once sealed */
    size_t n, cap;
    uint32_t first[256][2]; /* the range of `one` by first byte */
    uint32_t (*word)[2];    /* [n_word] owned: ranges of word characters, for single_word; may be NULL */
    size_t n_word;
};

struct tok_added_hit {
    size_t start, end; /* with the blanks that lstrip and rstrip take */
    int32_t id;
};

int tok_added_add(struct tok_added *a,
                  struct tok_added_one one); /* copies the text; an empty one is dropped */
void tok_added_seal(struct tok_added *a);
void tok_added_fini(struct tok_added *a);
/* First hit at or behind `from`; special tokens only with `special`. */
bool tok_added_find(const struct tok_added *a, struct str text, size_t from, bool special,
                    struct tok_added_hit *out);

#endif
