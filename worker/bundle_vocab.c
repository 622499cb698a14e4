/* A GGUF's vocabulary: arrays of strings and numbers under tokenizer.ggml.*, one of them per token. */
#include "bundle_vocab.h"

#include "mem.h"

#include <stddef.h>

static int take_strings(const struct gguf *g, const char *key, struct str **out, size_t *n_out, struct err *e)
{
    struct gguf_array a = {.type = GGUF_STRING};
    int st = gguf_opt_array(g, key, GGUF_STRING, &a, e);
    if (st || a.n == 0)
        return st;
    *out = mem_zalloc(a.n, sizeof **out);
    if (!*out)
        return err_set(e, ST_ENOMEM, "%s: %s: no memory", gguf_name(g), key);
    size_t n = 0;
    while (gguf_array_str(&a, *out + n)) /* never more than the a.n of above */
        n++;
    *n_out = n;
    return ST_OK;
}

static int take_numbers(const struct gguf *g, size_t n_tokens, struct bundle_vocab *v, struct err *e)
{
    struct gguf_array a = {0};
    int st = gguf_opt_array(g, "tokenizer.ggml.scores", GGUF_F32, &a, e);
    if (st)
        return st;
    if (a.n && a.n != n_tokens)
        return err_set(e, ST_EFORMAT, "%s: tokenizer.ggml.scores: %llu entries for %zu tokens", gguf_name(g),
                       (unsigned long long)a.n, n_tokens);
    if (a.n && !(v->scores = mem_alloc(n_tokens * sizeof *v->scores)))
        return err_set(e, ST_ENOMEM, "%s: tokenizer.ggml.scores: no memory", gguf_name(g));
    for (size_t i = 0; i < a.n; i++)
        v->scores[i] = (float)gguf_array_num(&a, i);
    a.n = 0;
    st = gguf_opt_array(g, "tokenizer.ggml.token_type", GGUF_ARRAY, &a, e);
    if (st)
        return st;
    if (a.n && (a.n != n_tokens || a.type == GGUF_STRING))
        return err_set(e, ST_EFORMAT, "%s: tokenizer.ggml.token_type: not one number per token",
                       gguf_name(g));
    if (a.n && !(v->types = mem_alloc(n_tokens * sizeof *v->types)))
        return err_set(e, ST_ENOMEM, "%s: tokenizer.ggml.token_type: no memory", gguf_name(g));
    for (size_t i = 0; i < a.n; i++)
        v->types[i] = (int32_t)gguf_array_int(&a, i);
    return ST_OK;
}

static int take_flags(const struct gguf *g, struct tok_spec *s, struct err *e)
{
    static const struct {
        const char *key;
        size_t at;
    } ids[] = {{"tokenizer.ggml.bos_token_id", offsetof(struct tok_spec, bos)},
               {"tokenizer.ggml.eos_token_id", offsetof(struct tok_spec, eos)},
               {"tokenizer.ggml.unknown_token_id", offsetof(struct tok_spec, unk)}};
    int st = ST_OK;
    for (size_t i = 0; !st && i < sizeof ids / sizeof *ids; i++) {
        int64_t *id = (int64_t *)((char *)s + ids[i].at);
        *id = -1;
        st = gguf_opt_int(g, ids[i].key, -1, UINT32_MAX, id, e);
        if (*id >= (int64_t)s->n_tokens) /* some files write 2^32 - 1 for "none" */
            *id = -1;
    }
    bool spm = s->kind == TOK_BPE_SPM;
    s->add_bos = spm || str_eqz(s->pre, "llama-bpe") || str_eqz(s->pre, "llama3");
    s->add_space_prefix = spm;
    st = st ? st : gguf_opt_bool(g, "tokenizer.ggml.add_bos_token", &s->add_bos, e);
    st = st ? st : gguf_opt_bool(g, "tokenizer.ggml.add_eos_token", &s->add_eos, e);
    st = st ? st : gguf_opt_bool(g, "tokenizer.ggml.add_space_prefix", &s->add_space_prefix, e);
    st = st ? st
            : gguf_opt_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &s->remove_extra_whitespaces, e);
    return st;
}

static int read_vocab(struct bundle_vocab *v, const struct gguf *g, struct err *e)
{
    struct tok_spec *s = &v->spec;
    struct str kind = {0};
    int st = gguf_need_str(g, "tokenizer.ggml.model", &kind, e);
    if (st)
        return st;
    if (!str_eqz(kind, "gpt2") && !str_eqz(kind, "llama"))
        return err_set(e, ST_EUNSUP, "%s: tokenizer.ggml.model: '%.*s' is neither gpt2 nor llama",
                       gguf_name(g), (int)(kind.n < 40 ? kind.n : 40), kind.p);
    s->kind = str_eqz(kind, "llama") ? TOK_BPE_SPM : TOK_BPE_BYTES;
    st = st ? st : gguf_opt_str(g, "tokenizer.ggml.pre", &s->pre, e);
    st = st ? st : take_strings(g, "tokenizer.ggml.tokens", &v->tokens, &s->n_tokens, e);
    st = st ? st : take_strings(g, "tokenizer.ggml.merges", &v->merges, &s->n_merges, e);
    st = st ? st : take_numbers(g, s->n_tokens, v, e);
    st = st ? st : take_flags(g, s, e);
    s->ignore_merges = str_eqz(s->pre, "llama-bpe") || str_eqz(s->pre, "llama3");
    s->tokens = v->tokens;
    s->merges = v->merges;
    s->scores = v->scores;
    s->types = v->types;
    return st;
}

int bundle_vocab_open(struct bundle_vocab *v, const struct gguf *g, struct err *e)
{
    *v = (struct bundle_vocab){0};
    int st = read_vocab(v, g, e);
    if (st)
        bundle_vocab_close(v);
    return st;
}

void bundle_vocab_close(struct bundle_vocab *v)
{
    mem_free(v->tokens);
    mem_free(v->merges);
    mem_free(v->scores);
    mem_free(v->types);
    *v = (struct bundle_vocab){0};
}
