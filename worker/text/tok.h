/* tok: text <-> token ids for byte-level BPE and SentencePiece-style BPE.
 *
 * Owns     a tok owns all its tables (copied from the spec or the JSON; the source may go away).
 * Units    token ids are int32, 0..tok_vocab_size-1; text sizes in bytes.
 * States   immutable after create.
 * Threads  any number of threads may encode and decode with one tok at once.
 * Errors   ST_EFORMAT with file field named (create); ST_NOSPACE when more than `cap` ids would result
 *          (encode; without text); ST_EINVAL, ST_ENOMEM.
 * Bounds   encode is O(n log n) in the text size, also on hostile text. tok_stream keeps at most TOK_STREAM_HOLD bytes.
 * Source   Hugging Face tokenizers (behaviour), llama.cpp vocabulary types in GGUF (tokenizer.ggml.*).
 */
#ifndef STATOR_TOK_H
#define STATOR_TOK_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

typedef int32_t tok_t;
struct tok; /* opaque */

enum tok_kind { TOK_BPE_BYTES, TOK_BPE_SPM };

/* GGUF tokenizer.ggml.token_type values. */
enum tok_type { TOK_NORMAL = 1, TOK_UNKNOWN, TOK_CONTROL, TOK_USER, TOK_UNUSED, TOK_BYTE };

/* What a GGUF says about its vocabulary, as plain arrays; all borrowed for the call only. */
struct tok_spec {
    enum tok_kind kind;
    size_t n_tokens;
    const struct str *tokens; /* [n_tokens] as stored: byte-level alphabet for BPE_BYTES, U+2581 for spaces in SPM */
    const float *scores;      /* [n_tokens]; SPM; may be NULL */
    const int32_t *types;     /* [n_tokens] enum tok_type; may be NULL = all normal */
    size_t n_merges;
    const struct str *merges; /* [n_merges] "left right", BPE_BYTES */
    struct str pre;           /* tokenizer.ggml.pre: "smollm", "llama-bpe", "gpt-2", "qwen2"...; empty = default */
    int64_t bos, eos, unk;    /* -1 = none */
    bool add_bos, add_eos, add_space_prefix, remove_extra_whitespaces;
    bool ignore_merges; /* whole-word hit in the vocabulary wins over merges (llama-bpe) */
};

int tok_create_spec(struct tok **out, const struct tok_spec *spec, struct err *e);
/* `tokenizer` is the text of tokenizer.json, `config` that of tokenizer_config.json (may be empty). */
int tok_create_json(struct tok **out, struct str tokenizer, struct str config, struct err *e);
void tok_destroy(struct tok *t); /* NULL ok */

uint32_t tok_vocab_size(const struct tok *t);
tok_t tok_bos(const struct tok *t); /* -1 = none */
tok_t tok_eos(const struct tok *t); /* -1 = none */
/* Exact content of a token as the vocabulary or the added tokens name it ("<|im_end|>"); -1 if there is none. */
tok_t tok_find(const struct tok *t, struct str name);
bool tok_is_special(const struct tok *t, tok_t id); /* control tokens: not shown by decode */
/* End-of-generation tokens known by name and role (eos, eot, eom, <|im_end|>...), at most `cap`; returns the count. */
size_t tok_eog(const struct tok *t, tok_t *out, size_t cap);

enum {
    TOK_ADD_SPECIAL = 1,  /* let the post-processor add bos / eos as the vocabulary asks */
    TOK_PARSE_SPECIAL = 2 /* "<|im_end|>" in the text becomes the control token; off: plain text (user-defined added
                             tokens that are not special are always matched) */
};
/* Encode UTF-8 (invalid bytes are taken byte by byte as U+FFFD is not forced on them; never fails on content).
 * Writes at most `cap` ids; *n_out = ids written. */
int tok_encode(const struct tok *t, struct str text, unsigned flags, tok_t *ids_out, size_t cap, size_t *n_out);

/* The raw bytes of one token as decoding in the middle of a text yields them (may be part of a character).
 * Valid as long as `t`. Special tokens give their name when `show_special`, else nothing. */
struct str tok_bytes(const struct tok *t, tok_t id, bool show_special);

/* Whole-sequence decode: appends to `out`. Equals tokenizers' decode(ids, skip_special_tokens = !show_special),
 * with clean_up_tokenization_spaces off. */
int tok_decode(const struct tok *t, const tok_t *ids, size_t n, bool show_special, struct buf *out);

/* Incremental detokeniser: plain data, no allocation, no cleanup. Never emits half a character: bytes of an incomplete
 * but so far valid UTF-8 sequence are held back; bytes that can no longer become valid are emitted as U+FFFD. */
enum { TOK_STREAM_HOLD = 4 };
struct tok_stream {
    char held[TOK_STREAM_HOLD];
    uint8_t n_held;
    bool started, show_special;
};
void tok_stream_init(struct tok_stream *s, bool show_special);
int tok_stream_push(struct tok_stream *s, const struct tok *t, tok_t id, struct buf *out); /* appends valid UTF-8 only */
int tok_stream_flush(struct tok_stream *s, struct buf *out); /* end of text: held bytes become U+FFFD */

#endif
