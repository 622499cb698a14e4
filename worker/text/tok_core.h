/* tok_core: the tokenizer's parts as its own files see them. Not for other rooms.
 *
 * Owns     a tok owns every table below; tok_destroy frees what of it is there.
 * Units    ids below `n` are the vocabulary's; ids from `n` to names.n are symbols that only merging sees.
 * States   filled by tok_spec.c or tok_json.c, then tok_finish, then read only.
 * Threads  any number of readers.
 * Errors   ST_ENOMEM, ST_EFORMAT.
 * Bounds   TOK_IDS_MAX ids, TOK_AFFIX_MAX tokens before and behind a text.
 */
#ifndef STATOR_TOK_CORE_H
#define STATOR_TOK_CORE_H

#include "tok.h"
#include "tok_added.h"
#include "tok_norm.h"
#include "tok_split.h"
#include "tok_tables.h"

enum { TOK_AFFIX_MAX = 16 };

enum tok_flag { TOK_IS_SPECIAL = 1, TOK_IS_ADDED = 2, TOK_IS_BYTE = 4 };

struct tok {
    uint32_t n;             /* vocabulary size */
    struct tok_names names; /* as the vocabulary spells them; the added tokens take precedence */
    struct tok_names words; /* as bytes of text; indexed only with ignore_merges */
    uint8_t *flags;         /* [n] enum tok_flag */
    struct tok_merges merges;
    tok_t byte_id[256];  /* the token of one byte (byte level), or of <0xXX>; -1 = none */
    tok_t ascii_id[128]; /* character level: the token of an ASCII character; -1 = none */
    tok_t bos, eos, unk;

    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
    bool
        cut_at_mark; /* character level, no pre-tokeniser: no merge crosses into a U+2581, so words are apart */
    bool byte_decode;    /* decode shows <0xXX> as that byte */
    bool meta_decode;    /* decode shows U+2581 as a space */
    bool join_decode;    /* decode puts a space between tokens (no decoder in the file) */
    uint8_t strip_start; /* how many leading spaces decode drops */

    struct tok_norm norm;
    struct tok_split split;
    struct tok_added raw, cooked; /* added tokens looked for before and after the normaliser */
    tok_t before[TOK_AFFIX_MAX], behind[TOK_AFFIX_MAX];
    size_t n_before, n_behind;
};

/* Allocates flags and sets every "none". names.n must be known: `n` of them belong to the vocabulary. */
int tok_begin(struct tok *t, uint32_t n, struct err *e);
/* Derives words, byte_id, ascii_id, cut_at_mark and seals the added tokens. */
int tok_finish(struct tok *t, struct err *e);

#define TOK_MARK "\xE2\x96\x81" /* U+2581, a space in SentencePiece vocabularies */

extern const uint16_t tok_alphabet[256]; /* GPT-2: the printable character of each byte */
/* Bytes that a byte-level spelling stands for; false when a character is not of that alphabet. out[s.n] fits. */
bool tok_unspell(struct str s, char *out, size_t *n_out);
/* "<0x0A>" -> 10; -1 when it is not such a name. */
int tok_byte_name(struct str s);

/* The split patterns that GGUF knows by name (tokenizer.ggml.pre). */
int tok_pre_add(struct tok *t, struct str pre, struct err *e);
/* The patterns of a name, in their order, NULL behind the last; NULL where they are not all there is to it. Static storage. */
const char *const *tok_pre_patterns(struct str pre);
#define TOK_GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

#endif
