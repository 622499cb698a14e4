/* grammar_own: what a grammar is made of, for those who make and free it.
 *
 * Owns     struct grammar and the arrays behind it, in one allocation.
 * Units    -
 * States   see grammar.h.
 * Threads  see grammar.h.
 * Errors   -
 * Bounds   -
 * Source   -
 */
#ifndef STATOR_GRAMMAR_OWN_H
#define STATOR_GRAMMAR_OWN_H

#include "grammar.h"

#include <stdatomic.h>

struct grammar {
    _Atomic uint32_t refs;
    const struct grammar_vocab *vocab;
    struct grammar_net net; /* points behind this struct */
};

#endif
