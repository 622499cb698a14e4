/* Four small trees of {"type": ...} nodes. Each walker takes one node, does what its type says, and calls
 * itself for the members of a Sequence. A type that is not known here is refused by name: a tokenizer that
 * is almost right would feed a model almost its own language, and nothing downstream could notice. */
#include "tok_rules.h"

#include <string.h>

/* Cut off from `e` what json.h says about a field, and put the section's name before it. */
static int in_section(const char *section, int st, struct err *e)
{
    struct err inner = e ? *e : (struct err){0};
    return err_set(e, st == ST_EINVAL ? ST_EFORMAT : st, "%s.%s", section, inner.text);
}

static int type_name(const cJSON *j, const char *section, struct str *out, struct err *e)
{
    int st = json_need_str(j, "type", out, e);
    return st ? in_section(section, st, e) : ST_OK;
}

static int unsupported(const char *section, struct str type, struct err *e)
{
    return err_set(e, ST_EUNSUP, "%s: type %.*s is not supported", section, (int)(type.n < 60 ? type.n : 60),
                   type.p);
}

/* {"String": "x"} or {"Regex": "x"} */
static int pattern_of(const cJSON *j, const char *section, struct str *out, bool *regex, struct err *e)
{
    const cJSON *p = json_get(j, "pattern");
    struct str lit = {0}, re = {0};
    if (cJSON_IsString(p)) {
        *out = str_from(p->valuestring);
        *regex = false;
        return ST_OK;
    }
    int st = json_opt_str(p, "String", &lit, e);
    if (!st)
        st = json_opt_str(p, "Regex", &re, e);
    if (st)
        return in_section(section, st, e);
    if (!lit.p == !re.p)
        return err_set(e, ST_EFORMAT, "%s.pattern: expected String or Regex", section);
    *regex = re.p != NULL;
    *out = re.p ? re : lit;
    return ST_OK;
}

typedef int node_fn(struct tok *t, const cJSON *j, int depth, struct err *e);

/* The members of a Sequence, in order; each may be a Sequence again. */
static int members(struct tok *t, const cJSON *list, const char *at, node_fn *node, int depth, struct err *e)
{
    const cJSON *k;
    if (depth == TOK_NEST_MAX)
        return err_set(e, ST_EUNSUP, "%s: nested too deep", at);
    cJSON_ArrayForEach(k, list)
    {
        int st = node(t, k, depth + 1, e);
        if (st)
            return st;
    }
    return ST_OK;
}

static int normalizer(struct tok *t, const cJSON *j, int depth, struct err *e)
{
    static const char *const at = "normalizer";
    struct str type, a = {0}, b = {0};
    bool regex;
    if (!j || cJSON_IsNull(j))
        return ST_OK;
    int st = type_name(j, at, &type, e);
    if (st)
        return st;
    if (str_eqz(type, "Sequence"))
        return members(t, json_get(j, "normalizers"), at, normalizer, depth, e);
    if (str_eqz(type, "NFC"))
        return tok_norm_nfc(&t->norm, e);
    if (str_eqz(type, "Prepend")) {
        st = json_need_str(j, "prepend", &a, e);
        return st ? in_section(at, st, e) : tok_norm_prepend(&t->norm, a, e);
    }
    if (!str_eqz(type, "Replace"))
        return unsupported(at, type, e);
    st = pattern_of(j, at, &a, &regex, e);
    if (st)
        return st;
    st = json_need_str(j, "content", &b, e);
    if (st)
        return in_section(at, st, e);
    return regex ? tok_norm_match(&t->norm, &t->split, a, b, e) : tok_norm_replace(&t->norm, a, b, e);
}

int tok_rules_normalizer(struct tok *t, const cJSON *j, struct err *e)
{
    return normalizer(t, j, 0, e);
}

static int behaviour_of(const cJSON *j, enum tok_behaviour *out, struct err *e)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                        "Contiguous"};
    struct str s;
    int st = json_need_str(j, "behavior", &s, e);
    if (st)
        return in_section("pre_tokenizer", st, e);
    for (int i = 0; i < 5; i++) {
        if (str_eqz(s, names[i])) {
            *out = (enum tok_behaviour)i;
            return ST_OK;
        }
    }
    return err_set(e, ST_EFORMAT, "pre_tokenizer.behavior: unknown value");
}

static int split_node(struct tok *t, const cJSON *j, struct err *e)
{
    struct str pattern;
    bool regex, invert = false;
    enum tok_behaviour how = TOK_ISOLATED;
    int st = pattern_of(j, "pre_tokenizer", &pattern, &regex, e);
    if (!st)
        st = behaviour_of(j, &how, e);
    if (st)
        return st;
    st = json_opt_bool(j, "invert", &invert, e);
    if (st)
        return in_section("pre_tokenizer", st, e);
    return regex ? tok_split_match(&t->split, pattern, how, invert, e)
                 : tok_split_literal(&t->split, pattern, how, invert, e);
}

static int byte_level_node(struct tok *t, const cJSON *j, struct err *e)
{
    bool space = true, regex = true;
    int st = json_opt_bool(j, "add_prefix_space", &space, e);
    if (!st)
        st = json_opt_bool(j, "use_regex", &regex, e);
    if (st)
        return in_section("pre_tokenizer", st, e);
    t->byte_level = true;
    if (space)
        st = tok_split_space(&t->split, e);
    if (!st && regex)
        st = tok_split_match(&t->split, STR_LIT(TOK_GPT2_PATTERN), TOK_ISOLATED, false, e);
    return st;
}

static int meta_node(const cJSON *j, const char *section, struct str *mark, enum tok_prepend *how, bool *cut,
                     struct err *e)
{
    bool space = true;
    struct str scheme = STR_LIT("always");
    *mark = STR_LIT(TOK_MARK);
    *cut = true;
    int st = json_opt_str(j, "replacement", mark, e);
    if (!st)
        st = json_opt_bool(j, "add_prefix_space", &space, e);
    if (!st)
        st = json_opt_bool(j, "split", cut, e);
    if (!st)
        st = json_opt_str(j, "prepend_scheme", &scheme, e);
    if (st)
        return in_section(section, st, e);
    *how = str_eqz(scheme, "never")   ? TOK_PREPEND_NEVER
           : str_eqz(scheme, "first") ? TOK_PREPEND_FIRST
                                      : TOK_PREPEND_ALWAYS;
    if (!space)
        *how = TOK_PREPEND_NEVER;
    return ST_OK;
}

static int splitter(struct tok *t, const cJSON *j, int depth, struct err *e)
{
    static const char *const at = "pre_tokenizer";
    struct str type;
    if (!j || cJSON_IsNull(j))
        return ST_OK;
    int st = type_name(j, at, &type, e);
    if (st)
        return st;
    if (str_eqz(type, "Sequence"))
        return members(t, json_get(j, "pretokenizers"), at, splitter, depth, e);
    if (t->byte_level)
        return err_set(e, ST_EUNSUP, "%s: a step behind ByteLevel", at);
    if (str_eqz(type, "Split"))
        return split_node(t, j, e);
    if (str_eqz(type, "ByteLevel"))
        return byte_level_node(t, j, e);
    if (str_eqz(type, "Digits")) {
        bool each = false;
        st = json_opt_bool(j, "individual_digits", &each, e);
        return st ? in_section(at, st, e)
                  : tok_split_match(&t->split, STR_LIT("\\p{N}"), each ? TOK_ISOLATED : TOK_CONTIGUOUS, false,
                                    e);
    }
    if (str_eqz(type, "Metaspace")) {
        struct str mark;
        enum tok_prepend how;
        bool cut;
        st = meta_node(j, at, &mark, &how, &cut, e);
        return st ? st : tok_split_meta(&t->split, mark, how, cut, e);
    }
    if (str_eqz(type, "Whitespace"))
        return tok_split_match(&t->split, STR_LIT("\\w+|[^\\w\\s]+"), TOK_REMOVED, true, e);
    if (str_eqz(type, "WhitespaceSplit"))
        return tok_split_match(&t->split, STR_LIT("\\s"), TOK_REMOVED, false, e);
    if (str_eqz(type, "Punctuation")) {
        enum tok_behaviour how = TOK_ISOLATED;
        st = json_get(j, "behavior") ? behaviour_of(j, &how, e) : ST_OK;
        return st ? st : tok_split_match(&t->split, STR_LIT("[\\p{P}!-/:-@\\[-`{-~]"), how, false, e);
    }
    return unsupported(at, type, e);
}

int tok_rules_splitter(struct tok *t, const cJSON *j, struct err *e)
{
    return splitter(t, j, 0, e);
}

static int put_affix(struct tok *t, bool behind, int64_t id, struct err *e)
{
    size_t *n = behind ? &t->n_behind : &t->n_before;
    if (id < 0 || (uint64_t)id >= t->n)
        return err_set(e, ST_EFORMAT, "post_processor: id %lld is not in the vocabulary", (long long)id);
    if (*n == TOK_AFFIX_MAX)
        return err_set(e, ST_EUNSUP, "post_processor: more than %d tokens", TOK_AFFIX_MAX);
    (behind ? t->behind : t->before)[(*n)++] = (tok_t)id;
    return ST_OK;
}

static int template_special(struct tok *t, const cJSON *j, const cJSON *special, bool behind, struct err *e)
{
    struct str name;
    int st = json_need_str(special, "id", &name, e);
    if (st)
        return in_section("post_processor.single", st, e);
    const cJSON *k, *ids = json_get(json_get(json_get(j, "special_tokens"), name.p), "ids");
    if (!cJSON_IsArray(ids))
        return err_set(e, ST_EFORMAT, "post_processor.special_tokens: no ids for a token of the template");
    cJSON_ArrayForEach(k, ids)
    {
        if (!cJSON_IsNumber(k))
            return err_set(e, ST_EFORMAT, "post_processor.special_tokens.ids: expected integers");
        st = put_affix(t, behind, k->valueint, e);
        if (st)
            return st;
    }
    return ST_OK;
}

static int template_node(struct tok *t, const cJSON *j, struct err *e)
{
    const cJSON *k, *single = json_get(j, "single");
    bool behind = false;
    int st = ST_OK;
    if (!cJSON_IsArray(single))
        return err_set(e, ST_EFORMAT, "post_processor.single: expected an array");
    cJSON_ArrayForEach(k, single)
    {
        const cJSON *special = json_get(k, "SpecialToken");
        if (json_get(k, "Sequence"))
            behind = true;
        else if (special)
            st = template_special(t, j, special, behind, e);
        if (st)
            return st;
    }
    return ST_OK;
}

/* RobertaProcessing, BertProcessing: ["</s>", 2] */
static int pair_node(struct tok *t, const cJSON *j, struct err *e)
{
    static const char *const names[] = {"cls", "sep"};
    for (int i = 0; i < 2; i++) {
        const cJSON *pair = json_get(j, names[i]), *id = pair && pair->child ? pair->child->next : NULL;
        if (!cJSON_IsArray(pair) || !cJSON_IsNumber(id))
            return err_set(e, ST_EFORMAT, "post_processor.%s: expected [text, id]", names[i]);
        int st = put_affix(t, i == 1, id->valueint, e);
        if (st)
            return st;
    }
    return ST_OK;
}

static int post(struct tok *t, const cJSON *j, int depth, struct err *e)
{
    struct str type;
    if (!j || cJSON_IsNull(j))
        return ST_OK;
    int st = type_name(j, "post_processor", &type, e);
    if (st)
        return st;
    if (str_eqz(type, "Sequence"))
        return members(t, json_get(j, "processors"), "post_processor", post, depth, e);
    if (str_eqz(type, "ByteLevel")) /* offsets only */
        return ST_OK;
    if (str_eqz(type, "TemplateProcessing"))
        return template_node(t, j, e);
    if (str_eqz(type, "RobertaProcessing") || str_eqz(type, "BertProcessing"))
        return pair_node(t, j, e);
    return unsupported("post_processor", type, e);
}

int tok_rules_post(struct tok *t, const cJSON *j, struct err *e)
{
    return post(t, j, 0, e);
}

static int strip_node(struct tok *t, const cJSON *j, struct err *e)
{
    struct str content = {0};
    int64_t start = 0, stop = 0;
    int st = json_need_str(j, "content", &content, e);
    if (!st)
        st = json_opt_int(j, "start", 0, 255, &start, e);
    if (!st)
        st = json_opt_int(j, "stop", 0, 255, &stop, e);
    if (st)
        return in_section("decoder", st, e);
    if (!str_eqz(content, " ") || stop != 0)
        return err_set(e, ST_EUNSUP, "decoder: Strip of anything but leading spaces");
    t->strip_start = (uint8_t)start;
    return ST_OK;
}

static int decoder(struct tok *t, const cJSON *j, int depth, struct err *e)
{
    struct str type, what, with = {0};
    int st = type_name(j, "decoder", &type, e);
    if (st)
        return st;
    if (str_eqz(type, "Sequence"))
        return members(t, json_get(j, "decoders"), "decoder", decoder, depth, e);
    if (str_eqz(type, "ByteLevel"))
        return t->byte_level ? ST_OK : err_set(e, ST_EUNSUP, "decoder: ByteLevel without its pre_tokenizer");
    if (str_eqz(type, "Fuse"))
        return ST_OK;
    if (str_eqz(type, "ByteFallback")) {
        t->byte_decode = true;
        return ST_OK;
    }
    if (str_eqz(type, "Strip"))
        return strip_node(t, j, e);
    if (str_eqz(type, "Metaspace")) {
        enum tok_prepend how;
        bool cut;
        st = meta_node(j, "decoder", &what, &how, &cut, e);
        if (!st && !str_eqz(what, TOK_MARK))
            return err_set(e, ST_EUNSUP, "decoder.replacement: only U+2581");
        t->meta_decode = true;
        t->strip_start = how != TOK_PREPEND_NEVER;
        return st;
    }
    if (!str_eqz(type, "Replace"))
        return unsupported("decoder", type, e);
    bool regex;
    st = pattern_of(j, "decoder", &what, &regex, e);
    if (st)
        return st;
    st = json_need_str(j, "content", &with, e);
    if (st)
        return in_section("decoder", st, e);
    if (regex || !str_eqz(what, TOK_MARK) || !str_eqz(with, " "))
        return err_set(e, ST_EUNSUP, "decoder: Replace of anything but U+2581 by a space");
    t->meta_decode = true;
    return ST_OK;
}

int tok_rules_decoder(struct tok *t, const cJSON *j, struct err *e)
{
    if (j && !cJSON_IsNull(j))
        return decoder(t, j, 0, e);
    t->join_decode = !t->byte_level;
    return ST_OK;
}
