/* Whatever a store's gateway answers: an error or a value, never a fault. The first byte chooses the reader. */
#include "dyn_etcd.h"

#include "mem.h"

#include <stdlib.h>

/* Two records, the second of which may stand there. */
static void take_found(struct str reply)
{
    struct dyn_record r[2] = {{.bucket = DYN_CARDS}, {.bucket = DYN_INSTANCES}};
    bool stands[2];
    uint64_t revisions[2];
    struct err e = {0};
    buf_puts(&r[0].key, "k");
    buf_puts(&r[1].key, "l");
    buf_puts(&r[1].value, "{}");
    dyn_etcd_take_found(reply, r, 2, 7, stands, revisions, &e);
    for (int i = 0; i < 2; i++) {
        buf_fini(&r[i].key);
        buf_fini(&r[i].value);
    }
}

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
    switch (data[0] % 5) {
    case 0:
        dyn_etcd_check(reply, data[0] & 4 ? 200 : 503, &code, &e);
        break;
    case 1:
        dyn_etcd_take_keepalive(reply, &flag, &e);
        break;
    case 2:
        dyn_etcd_take_token(reply, &token, &e);
        break;
    case 3:
        dyn_etcd_take_written(reply, &e);
        break;
    default:
        take_found(reply);
    }
    buf_fini(&token);
    if (mem_live() != 0)
        abort();
    return 0;
}
