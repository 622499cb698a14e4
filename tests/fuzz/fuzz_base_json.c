/* Any bytes: json_parse refuses or gives a tree; typed getters never misread it. */
#include "json.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cJSON *j = NULL;
    struct err e;
    if (json_parse(&j, (struct str){(const char *)data, size}, &e))
        return 0;
    int64_t i = 0;
    double d = 0;
    struct str s = {0};
    json_opt_int(j, "a", -100, 100, &i, &e);
    json_opt_num(j, "b", -1, 1, &d, &e);
    json_opt_str(j, "c", &s, &e);
    if (i < -100 || i > 100 || d < -1 || d > 1)
        __builtin_trap();
    struct buf b = {0};
    buf_put_json(&b, s);
    buf_fini(&b);
    json_free(j);
    return 0;
}
