/* answer_parameters: <parameter=x>1</parameter></function>: where the parameters of a call end in text that arrives byte by
 * byte, and the object that they are.
 *
 * Owns     nothing.
 * Units    bytes.
 * States   zeroed -> feed* -> DONE or BAD.
 * Threads  one owner.
 * Errors   -
 * Bounds   feed: O(1). put: O(bytes + schema of the function); ANSWER_PARAMETERS_MAX names.
 * Source   the template of Qwen 3 Coder. As in its parser a parameter that comes twice has its last value; unlike it, what stands
 *          between parameters is no part of a call, and a closing mark that is missing must be made up for by the line.
 */
#ifndef STATOR_ANSWER_PARAMETERS_H
#define STATOR_ANSWER_PARAMETERS_H

#include "answer_json.h"
#include "buf.h"
#include "json.h"

enum { ANSWER_PARAMETERS_MAX = 128, ANSWER_MARK_MAX = 16 };

struct answer_parameters {
    uint8_t state, mark;
    uint8_t at; /* bytes of the mark that were matched */
    bool line;  /* the next byte, or the mark, begins a line */
    bool ended; /* the last byte fed ended the value of [name, value - 1), which is [value, end) */
    size_t name, value, end; /* offsets in what was fed */
    size_t n;                /* that was fed */
    size_t opened;           /* where the name under way begins */
};

/* DONE with the last byte of </function>. The byte of BAD is no part of it, and `at` is as it was. */
enum answer_feed answer_parameters_feed(struct answer_parameters *p, char c);
/* `body` is what was fed up to DONE. Appends the object; false: too many parameters. */
bool answer_parameters_put(const cJSON *function, struct str body, struct buf *arguments);

#endif
