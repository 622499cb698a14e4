/* Any bytes as a schema or a list of choices, and the rest as a text: no crash, no leak, no state without a way on. */
#include "grammar_machine.h"
#include "grammar_schema.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run(const struct grammar *g, const uint8_t *text, size_t n)
{
    struct grammar_state s;
    grammar_begin(&s, g);
    for (size_t i = 0; i < n; i++) {
        bool any = grammar_can_end(&s);
        for (int c = 0; c < 256 && !any; c++) {
            struct grammar_state next = s;
            any = grammar_push(&next, (uint8_t)c);
        }
        if (!any)
            abort();
        grammar_push(&s, text[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *cut = size > 1 ? memchr(data + 1, 0, size - 1) : NULL;
    if (!cut)
        return 0;
    uint64_t live = mem_live();
    struct grammar *g = NULL;
    struct err e;
    cJSON *j = NULL;
    if (json_parse(&j, (struct str){(const char *)data + 1, (size_t)(cut - data) - 1}, &e) == ST_OK) {
        if (data[0] & 2)
            mem_fail_after(1 + (data[0] >> 2));
        int st = cJSON_IsArray(j) && data[0] & 1 ? grammar_from_choice(&g, j, NULL, &e)
                                                 : grammar_from_schema(&g, j, NULL, &e);
        mem_fail_after(0);
        if (st == ST_OK) {
            size_t n = size - (size_t)(cut - data);
            run(g, cut, n < 200 ? n : 200);
        }
        grammar_put(g);
    }
    json_free(j);
    if (mem_live() != live)
        abort();
    return 0;
}
