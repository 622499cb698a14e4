/* One pass over the known fields. Three classes: fields that act, fields that are harmless in the only value we can serve
 * (accepted in that value, refused in any other: a client that asked for audio must not get text with a 200), and
 * unknown fields (ignored, as OpenAI-compatible servers do). Lookups are by name instead of by walking the object once,
 * because the order in which errors are found then is ours and not the client's. */
#include "api_parse.h"

#include "api_messages.h"
#include "hash64.h"
#include "mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Puts the path of the enclosing object in front of a text that names a member. */
static int under(struct err *e, const char *parent, int st)
{
    if (!st || st == ST_ENOMEM)
        return st;
    char text[sizeof e->text];
    snprintf(text, sizeof text, "%s", e->text);
    return err_set(e, st, "%s.%.180s", parent, text);
}

static const cJSON *present(const cJSON *obj, const char *name)
{
    const cJSON *v = json_get(obj, name);
    return cJSON_IsNull(v) ? NULL : v;
}

static int opt_name(const cJSON *obj, const char *name, size_t max_bytes, struct str *out, struct err *e)
{
    int st = json_opt_str(obj, name, out, e);
    if (!st && out->n > max_bytes)
        st = err_set(e, ST_EINVAL, "%s: longer than %zu bytes", name, max_bytes);
    return st;
}

/* ---- fields that we can serve in one value only ------------------------------------------------------------------ */

static int unsupported(struct err *e, const char *name, const char *what)
{
    return err_set(e, ST_EUNSUP, "%s: %s is not supported yet", name, what);
}

static int check_formats(const cJSON *o, struct err *e)
{
    const cJSON *modalities = present(o, "modalities");
    if (modalities) {
        if (!cJSON_IsArray(modalities))
            return err_set(e, ST_EINVAL, "modalities: expected an array");
        for (const cJSON *m = modalities->child; m; m = m->next)
            if (!cJSON_IsString(m) || strcmp(m->valuestring, "text") != 0)
                return err_set(e, ST_EUNSUP, "modalities: only \"text\" is supported");
    }
    return ST_OK;
}

static int check_unbuilt(const cJSON *o, struct err *e)
{
    static const char *const absent[] = {
        "functions", "function_call", "structured_outputs", "prompt_logprobs", "documents", "suffix",
        "audio",     "prompt_embeds"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        const cJSON *v = present(o, absent[i]);
        if (v && !(cJSON_IsString(v) && v->valuestring[0] == 0))
            return unsupported(e, absent[i], "this field");
    }
    static const char *const off[] = {"echo", "use_beam_search", "continue_final_message"};
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        bool on = false;
        int st = json_opt_bool(o, off[i], &on, e);
        if (st)
            return st;
        if (on)
            return unsupported(e, off[i], "true");
    }
    return check_formats(o, e);
}

/* ---- sampling ---------------------------------------------------------------------------------------------------- */

static int parse_numbers(const cJSON *o, struct api_sampling *s, struct err *e)
{
    int st = ST_OK;
#define X(field, least, most) \
    if (!st)                  \
        st = json_opt_int(o, #field, least, most, &s->field, e);
    API_INTS(X)
#undef X
#define X(field, least, most) \
    if (!st)                  \
        st = json_opt_num(o, #field, least, most, &s->field, e);
    API_NUMS(X)
#undef X
    /* the newer name wins where both are sent */
    if (!st)
        st = json_opt_int(o, "max_completion_tokens", 1, 1000000000, &s->max_tokens, e);
    if (!st)
        st = json_opt_bool(o, "ignore_eos", &s->ignore_eos, e);
    if (st)
        return st;
    s->has_seed = present(o, "seed") != NULL;
    if (s->top_k < 0)
        s->top_k = 0;

    int64_t best_of = s->n, min_tokens = 0;
    st = json_opt_int(o, "best_of", 1, API_CHOICES_MAX, &best_of, e);
    if (!st)
        st = json_opt_int(o, "min_tokens", 0, 1000000000, &min_tokens, e);
    if (!st && best_of != s->n)
        st = err_set(e, ST_EUNSUP, "best_of: only the value of n is supported");
    if (!st && min_tokens > 0 && !s->ignore_eos)
        st = err_set(e, ST_EUNSUP, "min_tokens: supported only beside ignore_eos");
    return st;
}

static int parse_logprobs(struct api_request *r, const cJSON *o, struct err *e)
{
    r->logprobs = -1;
    int64_t top = 0;
    if (r->endpoint == API_COMPLETIONS) {
        if (!present(o, "logprobs"))
            return ST_OK;
        int st = json_opt_int(o, "logprobs", 0, API_TOP_LOGPROBS_MAX, &top, e);
        if (!st)
            r->logprobs = (int32_t)top;
        return st;
    }
    bool on = false;
    int st = json_opt_bool(o, "logprobs", &on, e);
    if (!st)
        st = json_opt_int(o, "top_logprobs", 0, API_TOP_LOGPROBS_MAX, &top, e);
    if (!st && top > 0 && !on)
        st = err_set(e, ST_EINVAL, "top_logprobs: needs logprobs to be true");
    if (!st && on)
        r->logprobs = (int32_t)top;
    return st;
}

static int add_stop(struct api_request *r, const cJSON *v, const char *name, struct err *e)
{
    if (!cJSON_IsString(v))
        return err_set(e, ST_EINVAL, "%s: expected a string", name);
    struct str s = str_from(v->valuestring);
    if (s.n == 0)
        return err_set(e, ST_EINVAL, "%s: the string is empty", name);
    if (s.n > API_STOP_BYTES_MAX)
        return err_set(e, ST_EINVAL, "%s: longer than %d bytes", name, API_STOP_BYTES_MAX);
    if (r->n_stop == API_STOP_MAX)
        return err_set(e, ST_EINVAL, "stop: more than %d strings", API_STOP_MAX);
    r->stop[r->n_stop++] = s;
    return ST_OK;
}

static int parse_stop(struct api_request *r, const cJSON *o, struct err *e)
{
    const cJSON *stop = present(o, "stop");
    if (cJSON_IsString(stop))
        return add_stop(r, stop, "stop", e);
    if (!stop)
        return ST_OK;
    if (!cJSON_IsArray(stop))
        return err_set(e, ST_EINVAL, "stop: expected a string or an array of strings");
    int i = 0, st = ST_OK;
    for (const cJSON *v = stop->child; v && !st; v = v->next, i++) {
        char name[32];
        snprintf(name, sizeof name, "stop[%d]", i);
        st = add_stop(r, v, name, e);
    }
    return st;
}

static int check_token(const cJSON *v, const char *name, uint32_t vocab_size, int32_t *out, struct err *e)
{
    double d = v->valuedouble;
    if (!cJSON_IsNumber(v) || !isfinite(d) || d != floor(d))
        return err_set(e, ST_EINVAL, "%s: expected a token id", name);
    if (d < 0 || d > API_TOKEN_MAX || d >= (double)vocab_size)
        return err_set(e, ST_EINVAL, "%s: token %.17g is outside the vocabulary of %u", name, d, vocab_size);
    *out = (int32_t)d;
    return ST_OK;
}

static int parse_stop_tokens(struct api_request *r, const cJSON *o, uint32_t vocab_size, struct err *e)
{
    const cJSON *list = present(o, "stop_token_ids");
    if (!list)
        return ST_OK;
    if (!cJSON_IsArray(list))
        return err_set(e, ST_EINVAL, "stop_token_ids: expected an array of token ids");
    int st = ST_OK;
    for (const cJSON *v = list->child; v && !st; v = v->next) {
        if (r->n_stop_tokens == API_STOP_TOKENS_MAX)
            return err_set(e, ST_EINVAL, "stop_token_ids: more than %d entries", API_STOP_TOKENS_MAX);
        char name[32];
        snprintf(name, sizeof name, "stop_token_ids[%u]", r->n_stop_tokens);
        st = check_token(v, name, vocab_size, &r->stop_tokens[r->n_stop_tokens], e);
        r->n_stop_tokens += !st;
    }
    return st;
}

static bool bias_has(const struct api_request *r, int32_t token)
{
    for (uint32_t i = 0; i < r->n_bias; i++)
        if (r->bias[i].token == token)
            return true;
    return false;
}

static int add_bias(struct api_request *r, const cJSON *v, uint32_t vocab_size, struct err *e)
{
    const char *key = v->string ? v->string : "";
    char *end = NULL;
    size_t digits = strspn(key, "0123456789");
    unsigned long long id = digits && digits <= 10 ? strtoull(key, &end, 10) : 0;
    if (!end || *end)
        return err_set(e, ST_EINVAL, "logit_bias: key \"%.32s\" is not a token id", key);
    if (id >= vocab_size || id > API_TOKEN_MAX)
        return err_set(e, ST_EINVAL, "logit_bias: token %llu is outside the vocabulary of %u", id,
                       vocab_size);
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        return err_set(e, ST_EINVAL, "logit_bias.%llu: expected a number", id);
    if (v->valuedouble < -100 || v->valuedouble > 100)
        return err_set(e, ST_EINVAL, "logit_bias.%llu: %.17g is outside -100..100", id, v->valuedouble);
    if (bias_has(r, (int32_t)id))
        return err_set(e, ST_EINVAL, "logit_bias: token %llu is named twice", id);
    r->bias[r->n_bias++] = (struct api_bias){(int32_t)id, (float)v->valuedouble};
    return ST_OK;
}

static int parse_bias(struct api_request *r, const cJSON *o, uint32_t vocab_size, struct err *e)
{
    const cJSON *map = present(o, "logit_bias");
    if (!map)
        return ST_OK;
    if (!cJSON_IsObject(map))
        return err_set(e, ST_EINVAL, "logit_bias: expected an object from token ids to numbers");
    uint32_t count = 0;
    for (const cJSON *v = map->child; v; v = v->next)
        if (++count > API_BIAS_MAX)
            return err_set(e, ST_EINVAL, "logit_bias: more than %d entries", API_BIAS_MAX);
    r->bias = mem_zalloc(count ? count : 1, sizeof *r->bias);
    if (!r->bias)
        return err_set(e, ST_ENOMEM, "logit_bias: out of memory");
    int st = ST_OK;
    for (const cJSON *v = map->child; v && !st; v = v->next)
        st = add_bias(r, v, vocab_size, e);
    return st;
}

/* ---- stream, salt, hints ----------------------------------------------------------------------------------------- */

static int parse_stream(struct api_request *r, const cJSON *o, struct err *e)
{
    int st = json_opt_bool(o, "stream", &r->stream, e);
    const cJSON *options = present(o, "stream_options");
    if (st || !options)
        return st;
    if (!cJSON_IsObject(options))
        return err_set(e, ST_EINVAL, "stream_options: expected an object");
    if (!r->stream)
        return err_set(e, ST_EINVAL, "stream_options: needs stream to be true");
    return under(e, "stream_options", json_opt_bool(options, "include_usage", &r->include_usage, e));
}

static int parse_extensions(struct api_request *r, const cJSON *o, uint32_t priority_max, struct err *e)
{
    struct str salt = {0};
    int st = opt_name(o, "cache_salt", API_SALT_BYTES_MAX, &salt, e);
    const cJSON *nvext = present(o, "nvext");
    if (!st && nvext) {
        if (!cJSON_IsObject(nvext))
            return err_set(e, ST_EINVAL, "nvext: expected an object");
        st = under(e, "nvext", opt_name(nvext, "cache_salt", API_SALT_BYTES_MAX, &salt, e));
        const cJSON *hints = present(nvext, "agent_hints");
        if (!st && hints && !cJSON_IsObject(hints))
            st = err_set(e, ST_EINVAL, "nvext.agent_hints: expected an object");
        else if (!st && hints)
            st = under(e, "nvext.agent_hints", api_hints_parse(&r->hints, hints, priority_max, e));
    }
    if (!st && salt.n)
        hash_once(salt.p, salt.n, r->cache_salt);
    r->salt_tag = hash64_salt(salt.p, salt.n);
    return st;
}

/* ---- what to complete -------------------------------------------------------------------------------------------- */

static int parse_chat(struct api_request *r, const struct api_context *ctx, struct err *e)
{
    cJSON *messages = cJSON_GetObjectItemCaseSensitive(r->root, "messages");
    int st = api_messages_check(messages, &ctx->knows, e);
    if (st)
        return st;
    r->messages = messages;
    const cJSON *tools = present(r->root, "tools");
    const cJSON *choice = present(r->root, "tool_choice");
    if (tools && (st = api_tools_check(tools, e)))
        return st;
    if (tools && tools->child && !(cJSON_IsString(choice) && strcmp(choice->valuestring, "none") == 0))
        r->tools = tools;
    r->template_kwargs = present(r->root, "chat_template_kwargs");
    if (r->template_kwargs && !cJSON_IsObject(r->template_kwargs))
        return err_set(e, ST_EINVAL, "chat_template_kwargs: expected an object");
    r->add_generation_prompt = r->parallel_calls = true;
    st = json_opt_bool(r->root, "add_generation_prompt", &r->add_generation_prompt, e);
    return st ? st : json_opt_bool(r->root, "parallel_tool_calls", &r->parallel_calls, e);
}

static int parse_ids(struct api_prompt *p, const cJSON *list, int32_t *ids, const char *name, struct err *e)
{
    if (!list->child)
        return err_set(e, ST_EINVAL, "%s: the array is empty", name);
    p->ids = ids;
    for (const cJSON *v = list->child; v; v = v->next) {
        /* whether an id is in the vocabulary is the engine's check: it knows the padded size */
        int st = check_token(v, name, UINT32_MAX, &ids[p->n_ids], e);
        if (st)
            return st;
        p->n_ids++;
    }
    return ST_OK;
}

static size_t count(const cJSON *list, size_t max)
{
    size_t n = 0;
    for (const cJSON *v = list->child; v && n <= max; v = v->next)
        n++;
    return n;
}

/* string | [string...] | [id...] | [[id...]...]; one shape per call */
static int parse_prompt(struct api_request *r, struct err *e)
{
    const cJSON *prompt = present(r->root, "prompt");
    if (!prompt)
        return err_set(e, ST_EINVAL, "prompt: missing");
    const cJSON *first = cJSON_IsArray(prompt) ? prompt->child : prompt;
    if (!first)
        return err_set(e, ST_EINVAL, "prompt: the array is empty");
    bool ids = cJSON_IsNumber(first), lists = cJSON_IsArray(first), texts = cJSON_IsString(first);
    if ((!ids && !lists && !texts) || (ids && first == prompt))
        return err_set(e, ST_EINVAL, "prompt: expected a string, an array of strings, or token ids");

    size_t n = first == prompt || ids ? 1 : count(prompt, API_PROMPTS_MAX), n_ids = 0;
    if (n > API_PROMPTS_MAX)
        return err_set(e, ST_EINVAL, "prompt: more than %d prompts", API_PROMPTS_MAX);
    if (ids)
        n_ids = count(prompt, SIZE_MAX - 1);
    for (const cJSON *v = lists ? first : NULL; v; v = v->next)
        n_ids += count(v, SIZE_MAX - 1);
    r->prompts = mem_zalloc(n, sizeof *r->prompts);
    r->ids = n_ids ? mem_zalloc(n_ids, sizeof *r->ids) : NULL;
    if (!r->prompts || (n_ids && !r->ids))
        return err_set(e, ST_ENOMEM, "prompt: out of memory");
    r->n_prompts = (uint32_t)n;
    if (ids)
        return parse_ids(&r->prompts[0], prompt, r->ids, "prompt", e);

    int32_t *at = r->ids;
    int i = 0, st = ST_OK;
    for (const cJSON *v = first; i < (int)n && !st; v = v->next, i++) {
        char name[32];
        snprintf(name, sizeof name, first == prompt ? "prompt" : "prompt[%d]", i);
        if (texts ? !cJSON_IsString(v) : !cJSON_IsArray(v))
            return err_set(e, ST_EINVAL, "%s: expected %s, as the first prompt is one", name,
                           texts ? "a string" : "an array of token ids");
        if (texts) {
            r->prompts[i].text = str_from(v->valuestring);
        } else {
            st = parse_ids(&r->prompts[i], v, at, name, e);
            at += r->prompts[i].n_ids;
        }
    }
    return st;
}

int api_parse(struct api_request *r, enum api_endpoint endpoint, struct str body,
              const struct api_context *ctx, struct err *e)
{
    *r = (struct api_request){.endpoint = endpoint, .sampling = ctx->defaults};
    if (api_has_nul(body))
        return err_set(e, ST_EINVAL, "JSON: \\u0000 in a string is not supported");
    int st = json_parse(&r->root, body, e);
    if (st)
        return st;
    const cJSON *o = r->root;
    if (!cJSON_IsObject(o))
        return err_set(e, ST_EINVAL, "request: expected a JSON object");
    if (count(o, API_FIELDS_MAX) > API_FIELDS_MAX)
        return err_set(e, ST_EINVAL, "request: more than %d fields", API_FIELDS_MAX);
    api_hints_init(&r->hints);
    st = opt_name(o, "model", API_NAME_BYTES_MAX, &r->model, e);
    if (!st)
        st = opt_name(o, "user", API_NAME_BYTES_MAX, &r->user, e);
    if (!st)
        st = check_unbuilt(o, e);
    if (!st)
        st = endpoint == API_CHAT ? parse_chat(r, ctx, e) : parse_prompt(r, e);
    if (!st)
        st = parse_numbers(o, &r->sampling, e);
    r->max_tokens_name = present(o, "max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
    if (!st && endpoint == API_COMPLETIONS && r->n_prompts * (uint64_t)r->sampling.n > API_CHOICES_MAX)
        st = err_set(e, ST_EINVAL, "n: %u prompts x %lld is more than %d choices", r->n_prompts,
                     (long long)r->sampling.n, API_CHOICES_MAX);
    if (!st)
        st = parse_logprobs(r, o, e);
    if (!st)
        st = parse_stop(r, o, e);
    if (!st)
        st = parse_stop_tokens(r, o, ctx->vocab_size, e);
    if (!st)
        st = parse_bias(r, o, ctx->vocab_size, e);
    if (!st)
        st = parse_stream(r, o, e);
    if (!st)
        st = parse_extensions(r, o, ctx->priority_max, e);
    if (!st)
        st = api_guide_parse(&r->guide, o, r->tools, e);
    return st;
}

void api_request_fini(struct api_request *r)
{
    api_guide_fini(&r->guide);
    json_free(r->root);
    mem_free(r->prompts);
    mem_free(r->ids);
    mem_free(r->bias);
    *r = (struct api_request){0};
}
