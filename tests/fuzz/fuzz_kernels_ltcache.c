/* The file of tuned library choices on arbitrary bytes: what is taken prints to the same bytes. */
#include "cuda/cu_lt_cache.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cu_lt_id id = {"GPU", 1, 2, 3};
    static const char head[] = "stator cublaslt 1\ngpu GPU\nsms 1\ndriver 2\nlibrary 3\nchoices ";
    static struct cu_lt_choice c[CU_LT_CHOICES];
    struct buf text = {0}, again = {0};
    uint32_t n;
    if (size > 0 && data[0] == '!') { /* most inputs would end at the head */
        buf_put(&text, head, sizeof head - 1);
        data++;
        size--;
    }
    buf_put(&text, data, size);
    if (cu_lt_cache_parse(buf_str(&text), &id, c, &n) == ST_OK) {
        if (cu_lt_cache_print(&again, &id, c, n) != ST_OK || again.n != text.n || memcmp(again.p, text.p, text.n) != 0)
            abort();
    } else if (n != 0) {
        abort();
    }
    buf_fini(&text);
    buf_fini(&again);
    return 0;
}
