/* Template source, a NUL, then JSON for the messages. Anything may be refused; nothing may break or run on.
 * */
#include "chat.h"
#include "json.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;
    const char *cut = size ? memchr(p, 0, size) : NULL;
    size_t n = cut ? (size_t)(cut - p) : size;
    struct err e;
    struct chat *c = NULL;
    cJSON *messages = NULL;
    if (chat_create(&c, (struct str){p, n}, &e))
        return 0;
    if (!cut || json_parse(&messages, (struct str){cut + 1, size - n - 1}, &e))
        json_parse(&messages,
                   STR_LIT("[{\"role\":\"user\",\"content\":\"Hi "
                           "\\u00e9\"},{\"role\":\"tool\",\"content\":[1,2.5,null]}]"),
                   &e);
    struct buf out = {.limit = 1 << 20};
    struct chat_input in = {.messages = messages, .tools = messages, .kwargs = json_get(messages, "kwargs")};
    in.bos_token = STR_LIT("<s>");
    in.add_generation_prompt = true;
    chat_render(c, &in, &out, &e);
    buf_fini(&out);
    chat_destroy(c);
    json_free(messages);
    return 0;
}
