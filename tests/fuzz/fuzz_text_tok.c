/* Input: one mode byte, then a text; or a tokenizer.json, a byte 0xFF, and a text.
 *
 * Mode bit 0 off: a fixed byte-level vocabulary (all bytes, a few merges, added tokens) or a fixed
 * SentencePiece one takes the text. Byte level must give back exactly the bytes it was given, whatever they
 * are. Mode bit 0 on: the loader takes the JSON; when it accepts it, the text is encoded, decoded and
 * streamed. In all modes: same ids twice, ids in range, streamed text valid UTF-8, nothing left on the heap. */
#include "mem.h"
#include "tok.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { N_MERGES = 6, N_EXTRA = 4 };

static struct tok *make_bytes(void)
{
    static char names[256][4];
    static const char *const merges[N_MERGES] = {"a b", "ab ab", "Ġ a", "b a", "Ġ Ġ", "ĠĠ Ġa"};
    static const char *const made[N_MERGES] = {"ab", "abab", "Ġa", "ba", "ĠĠ", "ĠĠĠa"};
    static const char *const extra[N_EXTRA] = {"<|im_end|>", "<|im", "<x>", "ab<"};
    struct str tokens[256 + N_MERGES + N_EXTRA], m[N_MERGES];
    int32_t types[256 + N_MERGES + N_EXTRA];
    uint32_t odd = 0x100;
    size_t n = 0;
    for (int b = 0; b < 256; b++, n++) {
        int printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
        tokens[n] = (struct str){names[b], (size_t)utf8_encode(printable ? (uint32_t)b : odd++, names[b])};
        types[n] = TOK_NORMAL;
    }
    for (int i = 0; i < N_MERGES; i++, n++) {
        m[i] = str_from(merges[i]);
        tokens[n] = str_from(made[i]);
        types[n] = TOK_NORMAL;
    }
    for (int i = 0; i < N_EXTRA; i++, n++) {
        tokens[n] = str_from(extra[i]);
        types[n] = i < 2 ? TOK_CONTROL : TOK_USER;
    }
    struct tok_spec s = {
        .kind = TOK_BPE_BYTES, .n_tokens = n, .tokens = tokens, .types = types, .n_merges = N_MERGES};
    s.merges = m;
    s.pre = STR_LIT("llama-bpe");
    s.bos = s.eos = s.unk = -1;
    struct tok *t = NULL;
    assert(tok_create_spec(&t, &s, NULL) == ST_OK);
    return t;
}

static struct tok *make_scored(void)
{
    static char names[256][8];
    static const char *const words[] = {"<unk>", "▁", "a", "b", "ab", "▁a", "aa", "aaaa", "é", "éa", "ba"};
    enum { WORDS = sizeof words / sizeof *words };
    struct str tokens[WORDS + 256];
    float scores[WORDS + 256];
    int32_t types[WORDS + 256];
    size_t n = 0;
    for (; n < WORDS; n++) {
        tokens[n] = str_from(words[n]);
        scores[n] = -(float)(n / 2);
        types[n] = n ? TOK_NORMAL : TOK_UNKNOWN;
    }
    for (int b = 0; b < 256; b++, n++) {
        memcpy(names[b], "<0x", 3);
        names[b][3] = "0123456789ABCDEF"[b >> 4];
        names[b][4] = "0123456789ABCDEF"[b & 15];
        names[b][5] = '>';
        tokens[n] = (struct str){names[b], 6};
        scores[n] = 0;
        types[n] = TOK_BYTE;
    }
    struct tok_spec s = {
        .kind = TOK_BPE_SPM, .n_tokens = n, .tokens = tokens, .scores = scores, .types = types};
    s.bos = s.eos = -1;
    s.unk = 0;
    s.add_space_prefix = true;
    struct tok *t = NULL;
    assert(tok_create_spec(&t, &s, NULL) == ST_OK);
    return t;
}

static void check(const struct tok *t, struct str text, unsigned flags, bool exact)
{
    size_t cap = text.n * 8 + 64, n = 0, again = 0;
    tok_t *ids = malloc(cap * sizeof *ids), *same = malloc(cap * sizeof *ids);
    int st = tok_encode(t, text, flags, ids, cap, &n);
    assert(st == ST_OK || (st == ST_NOSPACE && !exact));
    assert(tok_encode(t, text, flags, same, cap, &again) == st && n == again);
    assert(memcmp(ids, same, n * sizeof *ids) == 0);
    struct buf whole = {0}, parts = {0}, raw = {0};
    struct tok_stream s;
    tok_stream_init(&s, true);
    for (size_t i = 0; i < n; i++) {
        assert(ids[i] >= 0 && (uint32_t)ids[i] < tok_vocab_size(t));
        struct str w = tok_bytes(t, ids[i], true);
        buf_put(&raw, w.p, w.n);
        tok_stream_push(&s, t, ids[i], &parts);
    }
    tok_stream_flush(&s, &parts);
    tok_decode(t, ids, n, true, &whole);
    assert(utf8_valid(buf_str(&parts)) && utf8_valid(buf_str(&whole)));
    if (exact)
        assert(str_eq(buf_str(&raw), text) && str_eq(buf_str(&parts), buf_str(&whole)));
    if (n && cap > 1) { /* one id too little room */
        assert(tok_encode(t, text, flags, same, n - 1, &again) == ST_NOSPACE && again == 0);
    }
    buf_fini(&whole);
    buf_fini(&parts);
    buf_fini(&raw);
    free(ids);
    free(same);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint64_t live = mem_live();
    unsigned mode = data[0] == '{' ? 1 : data[0];
    struct str in = {(const char *)data + (data[0] != '{'), size - (data[0] != '{')};
    struct tok *t = NULL;
    if (mode & 1) {
        const char *cut = in.n ? memchr(in.p, 0xFF, in.n) : NULL;
        struct str json = {in.p, cut ? (size_t)(cut - in.p) : in.n};
        struct str text = {cut ? cut + 1 : in.p, cut ? in.n - json.n - 1 : in.n};
        struct err e = {0};
        if (tok_create_json(&t, json, (struct str){0}, &e) == ST_OK)
            check(t, text, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, false);
        else
            assert(e.text[0]);
    } else {
        t = mode & 2 ? make_scored() : make_bytes();
        check(t, in, mode & 4 ? TOK_PARSE_SPECIAL : 0, !(mode & 2));
    }
    tok_destroy(t);
    assert(mem_live() == live);
    return 0;
}
