/* Whatever a store's gateway answers: an error or a value, never a fault. The first byte chooses the reader. */
#include "dyn_etcd.h"

#include "mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct str reply = {(const char *)data + 1, size - 1};
    struct buf token = {0};
    struct err e = {0};
    bool flag = false;
    int64_t code = 0;
    switch (data[0] % 4) {
    case 0:
        dyn_etcd_check(reply, data[0] & 4 ? 200 : 503, &code, &e);
        break;
    case 1:
        dyn_etcd_take_keepalive(reply, &flag, &e);
        break;
    case 2:
        dyn_etcd_take_token(reply, &token, &e);
        break;
    default:
        dyn_etcd_take_created(reply, 7, &flag, &e);
    }
    buf_fini(&token);
    if (mem_live() != 0)
        abort();
    return 0;
}
