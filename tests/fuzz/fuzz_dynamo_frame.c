/* Request frames, the two-part messages in them, control messages, and what a frontend says on a response stream: any bytes, and
 * the same answer however they are cut. */
#include "dyn_frame.h"
#include "mem.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void payload(struct str bytes)
{
    struct dyn_parts parts;
    struct dyn_control control;
    struct err e;
    if (dyn_parts_parse(&parts, bytes.p, bytes.n, DYN_HEADER_MAX, DYN_FRAME_MAX))
        return;
    assert(parts.bytes == DYN_PART_BYTES + parts.header.n + parts.data.n && parts.bytes <= bytes.n);
    if (dyn_control_parse(&control, parts.header, &e) == ST_OK)
        assert(control.id[0] && control.subject[0] && control.address[0]);
    dyn_frame_ends(parts.header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dyn_frame f;
    struct dyn_control control;
    struct err e;
    const char *p = (const char *)data;
    for (size_t at = 0; at < size;) {
        int st = dyn_frame_parse(&f, p + at, size - at);
        assert(st == ST_OK || st == ST_AGAIN || st == ST_EFORMAT);
        if (st)
            break;
        assert(f.bytes >= 8 && f.bytes <= size - at);
        struct dyn_frame again;
        assert(dyn_frame_parse(&again, p + at, f.bytes) == ST_OK && again.bytes == f.bytes);
        assert(dyn_frame_parse(&again, p + at, f.bytes - 1) == ST_AGAIN);
        payload(f.payload);
        at += f.bytes;
    }
    payload((struct str){p, size});
    dyn_control_parse(&control, (struct str){p, size}, &e);
    assert(mem_live() == 0);
    return 0;
}
