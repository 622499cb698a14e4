/* Others tokenise for us (Dynamo's frontends), and they read tokenizer.json; a GGUF has none. It is written from the tables
 * that our own tokenizer was built of, so that both cannot disagree about what is a token, a merge or special:
 * - byte level: merges as listed, less those that can never apply, which tokenizers refuses; the patterns behind the name of
 *   the pre-tokeniser as Split steps;
 * - SentencePiece: merges as tok_spec.c derived them from scores. Of equal ranks ours takes the leftmost first, which a list
 *   cannot say; they are the several cuts of one token, and real vocabularies do not tell them apart. */
#include "tok_write.h"

#include "mem.h"
#include "tok_core.h"

#include <stdlib.h>

static void put_str(struct buf *out, const char *lead, struct str s)
{
    buf_puts(out, lead);
    buf_put_json(out, s);
}

/* Of equal names only the first is one that text becomes. */
static bool is_found(const struct tok *t, uint32_t id)
{
    return tok_names_find(&t->names, tok_names_get(&t->names, id)) == (int32_t)id;
}

static void put_vocab(struct buf *out, const struct tok *t)
{
    const char *lead = "";
    buf_puts(out, "\"vocab\":{");
    for (uint32_t i = 0; i < t->n; i++) {
        if (tok_names_get(&t->names, i).n == 0 || !is_found(t, i))
            continue;
        put_str(out, lead, tok_names_get(&t->names, i));
        buf_printf(out, ":%u", i);
        lead = ",";
    }
    buf_putc(out, '}');
}

static int by_rank(const void *a, const void *b)
{
    const struct tok_merge *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return x->key < y->key ? -1 : x->key > y->key;
}

static int put_merges(struct buf *out, const struct tok *t, struct err *e)
{
    struct tok_merge *all = mem_alloc(t->merges.n * sizeof *all);
    uint32_t n = 0;
    if (!all)
        return err_set(e, ST_ENOMEM, "tokenizer.json: no memory for merges");
    for (uint32_t i = 0; t->merges.n && i <= t->merges.mask; i++)
        if (t->merges.slot[i].id >= 0)
            all[n++] = t->merges.slot[i];
    qsort(all, n, sizeof *all, by_rank);
    int st = ST_OK;
    buf_puts(out, "\"merges\":[");
    for (uint32_t i = 0; !st && i < n; i++) {
        uint32_t left = (uint32_t)(all[i].key >> 32), right = (uint32_t)all[i].key;
        if (left >= t->n || right >= t->n) {
            st = err_set(e, ST_EUNSUP, "tokenizer.json: a character of token %d is no token itself",
                         all[i].id);
            break;
        }
        put_str(out, i ? ",[" : "[", tok_names_get(&t->names, left));
        put_str(out, ",", tok_names_get(&t->names, right));
        buf_putc(out, ']');
    }
    buf_putc(out, ']');
    mem_free(all);
    return st;
}

static void put_added(struct buf *out, const struct tok *t)
{
    const char *lead = "";
    buf_puts(out, "\"added_tokens\":[");
    for (uint32_t i = 0; i < t->n; i++) {
        if (!(t->flags[i] & TOK_IS_ADDED) || !is_found(t, i))
            continue;
        buf_printf(out, "%s{\"id\":%u,\"content\":", lead, i);
        buf_put_json(out, tok_names_get(&t->names, i));
        buf_printf(
            out,
            ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}",
            t->flags[i] & TOK_IS_SPECIAL ? "true" : "false");
        lead = ",";
    }
    buf_putc(out, ']');
}

static int put_rules_bytes(struct buf *out, const struct tok_spec *s, struct err *e)
{
    const char *const *patterns = tok_pre_patterns(s->pre);
    if (!patterns)
        return err_set(e, ST_EUNSUP, "tokenizer.json: the pre-tokeniser '%.*s' cannot be written",
                       (int)s->pre.n, s->pre.p);
    buf_puts(out, "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (; *patterns; patterns++) {
        put_str(out, "{\"type\":\"Split\",\"pattern\":{\"Regex\":", str_from(*patterns));
        buf_puts(out, "},\"behavior\":\"Isolated\",\"invert\":false},");
    }
    buf_puts(
        out,
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]},"
        "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":"
        "true},");
    return ST_OK;
}

static void put_rules_scored(struct buf *out, const struct tok_spec *s)
{
    buf_puts(out, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    if (s->add_space_prefix)
        buf_puts(out, "{\"type\":\"Prepend\",\"prepend\":\"" TOK_MARK "\"},");
    buf_puts(out,
             "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" TOK_MARK
             "\"}]},\"pre_tokenizer\":null,"
             "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
             "\"" TOK_MARK "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}");
    if (s->add_space_prefix)
        buf_puts(out, ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}");
    buf_puts(out, "]},");
}

/* What stands before and behind a text that is encoded with special tokens. */
static void put_template(struct buf *out, const struct tok *t, const char *key, const char *const *texts)
{
    buf_printf(out, "\"%s\":[", key);
    for (const char *lead = ""; *texts; texts++, lead = ",") {
        for (size_t i = 0; i < t->n_before; i++) {
            buf_puts(out, lead);
            put_str(out, "{\"SpecialToken\":{\"id\":", tok_names_get(&t->names, (uint32_t)t->before[i]));
            buf_puts(out, ",\"type_id\":0}}");
            lead = ",";
        }
        buf_printf(out, "%s{\"Sequence\":{\"id\":\"%s\",\"type_id\":0}}", lead, *texts);
        for (size_t i = 0; i < t->n_behind; i++) {
            put_str(out, ",{\"SpecialToken\":{\"id\":", tok_names_get(&t->names, (uint32_t)t->behind[i]));
            buf_puts(out, ",\"type_id\":0}}");
        }
    }
    buf_puts(out, "],");
}

static void put_special(struct buf *out, const struct tok *t, tok_t id, const char *lead)
{
    struct str name = tok_names_get(&t->names, (uint32_t)id);
    put_str(out, lead, name);
    put_str(out, ":{\"id\":", name);
    buf_printf(out, ",\"ids\":[%d],\"tokens\":[", id);
    buf_put_json(out, name);
    buf_puts(out, "]}");
}

static void put_post(struct buf *out, const struct tok *t)
{
    if (t->n_before + t->n_behind == 0) {
        buf_puts(out, "\"post_processor\":null,");
        return;
    }
    buf_puts(out, "\"post_processor\":{\"type\":\"TemplateProcessing\",");
    put_template(out, t, "single", (const char *[]){"A", NULL});
    put_template(out, t, "pair", (const char *[]){"A", "B", NULL});
    buf_puts(out, "\"special_tokens\":{");
    if (t->n_before)
        put_special(out, t, t->before[0], "");
    if (t->n_behind && !(t->n_before && t->behind[0] == t->before[0]))
        put_special(out, t, t->behind[0], t->n_before ? "," : "");
    buf_puts(out, "}},");
}

static int write_all(struct buf *out, const struct tok_spec *s, const struct tok *t, struct err *e)
{
    buf_puts(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,");
    put_added(out, t);
    buf_putc(out, ',');
    int st = ST_OK;
    if (s->kind == TOK_BPE_SPM)
        put_rules_scored(out, s);
    else
        st = put_rules_bytes(out, s, e);
    if (st)
        return st;
    put_post(out, t);
    buf_puts(out, "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":");
    if (t->unk >= 0)
        buf_put_json(out, tok_names_get(&t->names, (uint32_t)t->unk));
    else
        buf_puts(out, "null");
    buf_printf(out,
               ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":%s,\"byte_"
               "fallback\":%s,"
               "\"ignore_merges\":%s,",
               t->fuse_unk ? "true" : "false", t->byte_fallback ? "true" : "false",
               t->ignore_merges ? "true" : "false");
    put_vocab(out, t);
    buf_putc(out, ',');
    st = put_merges(out, t, e);
    buf_puts(out, "}}");
    return st ? st : out->failed ? err_set(e, out->failed, "tokenizer.json: no memory") : ST_OK;
}

int tok_write_json(struct buf *out, const struct tok_spec *spec, struct err *e)
{
    struct tok *t = NULL;
    int st = tok_create_spec(&t, spec, e);
    if (!st)
        st = write_all(out, spec, t, e);
    tok_destroy(t);
    return st;
}
