/* Random weights need no real vocabulary, but requests and replies are text all the same: each byte of a prompt is a token, and
 * tokens that are no byte show as their number, so that a stream is seen to move. Names are in the byte-level alphabet: printable
 * Latin-1 stands for itself, the other 68 bytes for U+0100 onwards. */
#include "bundle.h"

#include "mem.h"

#include <stdio.h>
#include <string.h>

enum { NAME_MAX_BYTES = 16 };

static bool stands_for_itself(uint32_t byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

static size_t name_byte(uint32_t byte, char *out)
{
    uint32_t code = byte;
    if (!stands_for_itself(byte)) {
        code = 256;
        for (uint32_t i = 0; i < byte; i++)
            code += !stands_for_itself(i);
    }
    if (code < 128) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 63));
    return 2;
}

int bundle_byte_tok(struct tok **out, uint32_t vocab, struct err *e)
{
    struct str *tokens = mem_zalloc(vocab, sizeof *tokens);
    char *names = mem_zalloc(vocab, NAME_MAX_BYTES);
    int st = tokens && names ? ST_OK : err_set(e, ST_ENOMEM, "no memory for %u tokens", vocab);
    for (uint32_t i = 0; !st && i < vocab; i++) {
        char *name = names + (size_t)i * NAME_MAX_BYTES;
        /* U+0120 is the space */
        size_t n = i < 256 ? name_byte(i, name) : (size_t)snprintf(name, NAME_MAX_BYTES, "\xc4\xa0<%u>", i);
        tokens[i] = (struct str){name, n};
    }
    struct tok_spec spec = {.kind = TOK_BPE_BYTES, .n_tokens = vocab, .tokens = tokens, .bos = -1, .eos = -1, .unk = -1};
    if (!st)
        st = tok_create_spec(out, &spec, e);
    mem_free(tokens);
    mem_free(names);
    return st;
}
