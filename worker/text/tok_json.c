/* From tokenizer.json. The file is one big object of half a million strings; every list is walked once by
 * its links (indexing a cJSON array is linear), names go into flat arrays by id, and a merge costs three
 * hash look-ups.
 *
 * Ids must be nearly dense: tables are indexed by id, and a file that names one token 2^31 must not cost
 * gigabytes. tokenizer_config.json only adds what the first file cannot say: which tokens begin and end a
 * text. */
#include "tok_core.h"
#include "tok_rules.h"

#include "mem.h"

#include <string.h>

struct load {
    struct tok *t;
    const cJSON *model, *vocab, *added;
    struct str *names; /* [n] */
    size_t n;
    bool legacy_bos; /* no template in the file: tokenizer_config.json decides */
};

static int as_format(const char *file, int st, struct err *e)
{
    struct err inner = e ? *e : (struct err){0};
    return err_set(e, st == ST_EINVAL ? ST_EFORMAT : st, "%s: %s", file, inner.text);
}

static bool id_of(const cJSON *j, int64_t *out)
{
    if (!cJSON_IsNumber(j) || !(j->valuedouble >= 0 && j->valuedouble < TOK_IDS_MAX) ||
        j->valuedouble != (double)j->valueint)
        return false;
    *out = j->valueint;
    return true;
}

static int count_ids(struct load *l, struct err *e)
{
    const cJSON *k;
    int64_t id, top = -1;
    size_t count = 0;
    cJSON_ArrayForEach(k, l->vocab)
    {
        if (!id_of(k, &id))
            return err_set(e, ST_EFORMAT, "model.vocab: entry %zu has no valid id", count);
        top = id > top ? id : top;
        count++;
    }
    cJSON_ArrayForEach(k, l->added)
    {
        if (!id_of(json_get(k, "id"), &id) || !cJSON_IsString(json_get(k, "content")))
            return err_set(e, ST_EFORMAT, "added_tokens: entry without valid id and content");
        top = id > top ? id : top;
        count++;
    }
    if (count == 0 || (size_t)top >= 4 * count + 1024)
        return err_set(e, ST_EFORMAT, "model.vocab: ids up to %lld for %zu tokens", (long long)top, count);
    l->n = (size_t)top + 1;
    return ST_OK;
}

static int read_names(struct load *l, struct err *e)
{
    const cJSON *k;
    int64_t id;
    l->names = mem_zalloc(l->n, sizeof *l->names);
    if (!l->names)
        return err_set(e, ST_ENOMEM, "tokenizer: no memory for the vocabulary");
    cJSON_ArrayForEach(k, l->vocab) if (id_of(k, &id)) l->names[id] = str_from(k->string);
    cJSON_ArrayForEach(k, l->added) if (id_of(json_get(k, "id"), &id)) l->names[id] =
        str_from(json_get(k, "content")->valuestring);
    int st = tok_names_init(&l->t->names, l->names, l->n, true);
    return st ? err_set(e, st, "model.vocab: no room for it") : ST_OK;
}

/* "left right" or ["left", "right"] */
static bool merge_parts(const cJSON *j, struct str *left, struct str *right)
{
    if (cJSON_IsString(j)) {
        const char *gap = strchr(j->valuestring, ' ');
        if (!gap || strchr(gap + 1, ' '))
            return false;
        *left = (struct str){j->valuestring, (size_t)(gap - j->valuestring)};
        *right = str_from(gap + 1);
        return true;
    }
    const cJSON *a = cJSON_IsArray(j) ? j->child : NULL, *b = a ? a->next : NULL;
    if (!cJSON_IsString(a) || !cJSON_IsString(b) || b->next)
        return false;
    *left = str_from(a->valuestring);
    *right = str_from(b->valuestring);
    return true;
}

static int read_merges(struct load *l, struct err *e)
{
    const cJSON *k, *list = json_get(l->model, "merges");
    struct tok *t = l->t;
    struct buf joined = {0};
    size_t n = 0, i = 0;
    if (!cJSON_IsArray(list))
        return err_set(e, ST_EFORMAT, "model.merges: expected an array");
    cJSON_ArrayForEach(k, list) n++;
    int st = tok_merges_init(&t->merges, n);
    if (st)
        return err_set(e, st, "model.merges: no room for %zu", n);
    cJSON_ArrayForEach(k, list)
    {
        struct str a, b;
        if (!merge_parts(k, &a, &b)) {
            st = err_set(e, ST_EFORMAT, "model.merges[%zu]: expected two parts", i);
            break;
        }
        buf_reset(&joined);
        buf_put(&joined, a.p, a.n);
        buf_put(&joined, b.p, b.n);
        int32_t left = tok_names_find(&t->names, a), right = tok_names_find(&t->names, b);
        int32_t id = joined.failed ? -1 : tok_names_find(&t->names, buf_str(&joined));
        if (left < 0 || right < 0 || id < 0) {
            st = joined.failed
                     ? err_set(e, joined.failed, "tokenizer: no memory for merges")
                     : err_set(e, ST_EFORMAT, "model.merges[%zu]: a part is not in the vocabulary", i);
            break;
        }
        tok_merges_put(&t->merges, left, right, (uint32_t)i++, id, true);
    }
    buf_fini(&joined);
    return st;
}

static int read_model(struct load *l, struct err *e)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    struct str type = STR_LIT("BPE"), text = {0};
    double dropout = 0;
    int st = json_opt_str(l->model, "type", &type, e);
    if (!st && !str_eqz(type, "BPE"))
        return err_set(e, ST_EUNSUP, "model.type: only BPE is supported");
    for (int i = 0; !st && i < 2; i++) {
        text.n = 0;
        st = json_opt_str(l->model, affixes[i], &text, e);
        if (!st && text.n)
            return err_set(e, ST_EUNSUP, "model.%s is not supported", affixes[i]);
    }
    if (!st)
        st = json_opt_num(l->model, "dropout", 0, 1, &dropout, e);
    if (!st && dropout > 0)
        return err_set(e, ST_EUNSUP, "model.dropout is not supported");
    if (!st)
        st = json_opt_bool(l->model, "byte_fallback", &l->t->byte_fallback, e);
    if (!st)
        st = json_opt_bool(l->model, "fuse_unk", &l->t->fuse_unk, e);
    if (!st)
        st = json_opt_bool(l->model, "ignore_merges", &l->t->ignore_merges, e);
    text = (struct str){0};
    if (!st)
        st = json_opt_str(l->model, "unk_token", &text, e);
    if (st)
        return as_format("model", st, e);
    if (text.p)
        l->t->unk = tok_find(l->t, text);
    return read_merges(l, e);
}

static int add_one(struct tok *t, const cJSON *j, pcre2_match_data *md, struct buf *a, struct buf *b,
                   struct err *e)
{
    struct tok_added_one one = {0};
    int64_t id = 0;
    bool normalized = false;
    (void)id_of(json_get(j, "id"), &id);
    one.id = (int32_t)id;
    one.text = str_from(json_get(j, "content")->valuestring);
    int st = json_opt_bool(j, "special", &one.special, e);
    normalized = !one.special;
    if (!st)
        st = json_opt_bool(j, "lstrip", &one.lstrip, e);
    if (!st)
        st = json_opt_bool(j, "rstrip", &one.rstrip, e);
    if (!st)
        st = json_opt_bool(j, "single_word", &one.single_word, e);
    if (!st)
        st = json_opt_bool(j, "normalized", &normalized, e);
    if (st)
        return as_format("added_tokens", st, e);
    t->flags[id] |= (uint8_t)(TOK_IS_ADDED | (one.special ? TOK_IS_SPECIAL : 0));
    if (normalized && t->norm.n)
        st = tok_norm_run(&t->norm, &t->split, md, one.text, true, a, b, &one.text);
    if (!st)
        st = tok_added_add(normalized ? &t->cooked : &t->raw, one);
    return st ? err_set(e, st, "added_tokens: no room") : ST_OK;
}

static int read_added(struct load *l, struct err *e)
{
    struct buf a = {0}, b = {0};
    struct tok *t = l->t;
    bool words = false;
    pcre2_match_data *md = pcre2_match_data_create(1, l->t->split.heap);
    int st = md ? ST_OK : err_set(e, ST_ENOMEM, "tokenizer: no memory for added tokens");
    const cJSON *k;
    cJSON_ArrayForEach(k, l->added)
    {
        if (!st)
            st = add_one(t, k, md, &a, &b, e);
        words = words || cJSON_IsTrue(json_get(k, "single_word"));
    }
    if (!st && words)
        st = tok_split_class(&t->split, STR_LIT("\\w+"), &t->raw.word, &t->raw.n_word, e);
    if (!st && words)
        st = tok_split_class(&t->split, STR_LIT("\\w+"), &t->cooked.word, &t->cooked.n_word, e);
    pcre2_match_data_free(md);
    buf_fini(&a);
    buf_fini(&b);
    return st;
}

/* "bos_token": "<s>" or {"content": "<s>"} */
static tok_t config_token(const struct tok *t, const cJSON *config, const char *name)
{
    const cJSON *j = json_get(config, name);
    if (cJSON_IsObject(j))
        j = json_get(j, "content");
    return cJSON_IsString(j) ? tok_find(t, str_from(j->valuestring)) : -1;
}

static int read_config(struct load *l, struct str text, struct err *e)
{
    struct tok *t = l->t;
    if (text.n == 0) {
        t->bos = t->n_before ? t->before[0] : -1;
        return ST_OK;
    }
    cJSON *j = NULL;
    bool bos = false, eos = false;
    int st = json_parse(&j, text, e);
    if (!st && !cJSON_IsObject(j))
        st = err_set(e, ST_EFORMAT, "expected an object");
    if (!st)
        st = json_opt_bool(j, "add_bos_token", &bos, e);
    if (!st)
        st = json_opt_bool(j, "add_eos_token", &eos, e);
    if (st) {
        json_free(j);
        return as_format("tokenizer_config.json", st, e);
    }
    t->bos = config_token(t, j, "bos_token");
    t->eos = config_token(t, j, "eos_token");
    json_free(j);
    if (l->legacy_bos && bos && t->bos >= 0)
        t->before[t->n_before++] = t->bos;
    if (l->legacy_bos && eos && t->eos >= 0)
        t->behind[t->n_behind++] = t->eos;
    return ST_OK;
}

static int build(struct load *l, const cJSON *j, struct err *e)
{
    struct tok *t = l->t;
    l->model = json_get(j, "model");
    l->vocab = json_get(l->model, "vocab");
    l->added = json_get(j, "added_tokens");
    if (!cJSON_IsObject(l->vocab))
        return err_set(e, ST_EFORMAT, "model.vocab: expected an object");
    int st = count_ids(l, e);
    if (!st)
        st = tok_begin(t, (uint32_t)l->n, e);
    if (!st)
        st = read_names(l, e);
    if (!st)
        st = tok_rules_normalizer(t, json_get(j, "normalizer"), e);
    if (!st)
        st = tok_rules_splitter(t, json_get(j, "pre_tokenizer"), e);
    if (!st)
        st = tok_rules_post(t, json_get(j, "post_processor"), e);
    if (!st)
        st = tok_rules_decoder(t, json_get(j, "decoder"), e);
    if (!st)
        st = read_model(l, e);
    if (!st)
        st = read_added(l, e);
    l->legacy_bos = t->n_before == 0 && t->n_behind == 0;
    return st;
}

int tok_create_json(struct tok **out, struct str tokenizer, struct str config, struct err *e)
{
    struct err local;
    cJSON *j = NULL;
    e = e ? e : &local; /* texts are composed from the inner ones */
    int st = json_parse(&j, tokenizer, e);
    if (st)
        return as_format("tokenizer.json", st, e);
    struct load l = {.t = mem_zalloc(1, sizeof *l.t)};
    if (l.t) {
        st = build(&l, j, e);
        if (st)
            st = as_format("tokenizer.json", st, e);
        if (!st)
            st = read_config(&l, config, e);
        if (!st)
            st = tok_finish(l.t, e);
    } else {
        st = err_set(e, ST_ENOMEM, "tokenizer: no memory");
    }
    mem_free(l.names);
    json_free(j);
    if (st)
        tok_destroy(l.t);
    else
        *out = l.t;
    return st;
}
