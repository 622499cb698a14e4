/* Everything between the body and the engine that only reads: parse, render, tokenise, check lengths. One function without
 * side effects, so that it may run inline or on a lane without a second version of it. */
#include "http_prompt.h"

#include "clock.h"
#include "grammar_schema.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

bool http_model_serves(const struct http_model *m, struct str name)
{
    for (uint32_t i = 0; i < m->n_names; i++)
        if (str_eq(m->names[i], name))
            return true;
    return false;
}

int http_model_unknown(const struct http_model *m, struct str name, struct err *e)
{
    char served[160];
    size_t n = 0;
    for (uint32_t i = 0; i < m->n_names && n < sizeof served; i++) {
        int k =
            snprintf(served + n, sizeof served - n, i ? ", %.*s" : "%.*s", (int)m->names[i].n, m->names[i].p);
        n += k > 0 ? (size_t)k : 0;
    }
    return err_set(e, ST_ENOENT, "model: The model `%.*s` does not exist; this server serves: %s",
                   (int)(name.n < 64 ? name.n : 64), name.p, served);
}

static int encode(struct http_tokens *t, const struct tok *tok, struct str text, unsigned flags,
                  struct err *e)
{
    /* no tokenizer gives more ids than bytes, but for a leading space and the special tokens at the ends */
    size_t cap, bytes, n = 0;
    if (!mem_add(text.n, 16, &cap) || !mem_mul(cap, sizeof *t->owned, &bytes) || cap > UINT32_MAX)
        return err_set(e, ST_EINVAL, "prompt: too long");
    t->owned = mem_alloc(bytes);
    if (!t->owned)
        return err_set(e, ST_ENOMEM, "prompt: out of memory");
    int st = tok_encode(tok, text, flags, t->owned, cap, &n);
    if (st)
        return err_set(e, st == ST_ENOMEM ? ST_ENOMEM : ST_EINTERNAL, "prompt: cannot be tokenised: %s",
                       status_text(st));
    int32_t *tight = mem_realloc(t->owned, n ? n * sizeof *tight : 1);
    if (tight)
        t->owned = tight;
    t->ids = t->owned;
    t->n = (uint32_t)n;
    return ST_OK;
}

static int render(struct http_prompt *p, const struct http_model *m, struct err *e)
{
    if (!m->chat)
        return err_set(e, ST_EINVAL, "This model has no usable chat template (%.*s); use /v1/completions",
                       (int)(m->why_no_chat.n < 120 ? m->why_no_chat.n : 120), m->why_no_chat.p);
    const struct api_request *r = &p->request;
    const struct chat_input in = {.messages = r->messages,
                                  .tools = r->tools,
                                  .kwargs = r->template_kwargs,
                                  .bos_token = m->bos,
                                  .eos_token = m->eos,
                                  .unk_token = m->unk,
                                  .pad_token = m->pad,
                                  .add_generation_prompt = r->add_generation_prompt,
                                  .now_s = clock_wall_s()};
    struct buf text = {.limit = CHAT_OUTPUT_MAX};
    struct err why = {0};
    int st = chat_render(m->chat, &in, &text, &why);
    if (st)
        st = err_set(e, st == ST_ENOMEM ? ST_ENOMEM : ST_EINVAL, "Chat template: %.200s",
                     why.text[0] ? why.text : status_text(st));
    else /* the template writes bos by itself where the model wants it */
        st = encode(&p->list[0], m->tok, buf_str(&text), TOK_PARSE_SPECIAL, e);
    p->opened = answer_form_opened(chat_form(m->chat).reasoning, buf_str(&text));
    buf_fini(&text);
    return st;
}

static int check_length(struct http_tokens *t, const struct http_model *m, const struct api_request *r,
                        struct err *e)
{
    bool chat = r->endpoint == API_CHAT;
    uint64_t asked = (uint64_t)r->sampling.max_tokens, context = m->context_length;
    if (t->n == 0)
        return err_set(e, ST_EINVAL, "%s: no tokens to complete", chat ? "messages" : "prompt");
    if (t->n >= context)
        return err_set(
            e, ST_EINVAL,
            "%s: This model's maximum context length is %u tokens. However, your %s %u tokens, which leaves "
            "no room for a completion.",
            chat ? "messages" : "prompt", m->context_length, chat ? "messages have" : "prompt has", t->n);
    if (asked > context - t->n)
        return err_set(
            e, ST_EINVAL,
            "%s: This model's maximum context length is %u tokens. However, you requested %llu tokens (%u in "
            "the %s, %llu in the completion).",
            r->max_tokens_name, m->context_length, (unsigned long long)(t->n + asked), t->n,
            chat ? "messages" : "prompt", (unsigned long long)asked);
    if (asked == 0) {
        asked = context - t->n;
        if (!chat && asked > API_MAX_TOKENS_DEFAULT)
            asked = API_MAX_TOKENS_DEFAULT;
    }
    t->max_tokens = (uint32_t)asked;
    return ST_OK;
}

static int compile_guide(struct http_prompt *p, const struct http_model *m, struct err *e)
{
    const struct api_guide *g = &p->request.guide;
    struct err why = {0};
    if (g->kind == API_GUIDE_NONE)
        return ST_OK;
    if (!m->vocab)
        return err_set(e, ST_EUNSUP, "%s: not supported for this model", g->field);
    int st = g->kind == API_GUIDE_CHOICE ? grammar_from_choice(&p->grammar, g->value, m->vocab, &why)
                                         : grammar_from_schema(&p->grammar, g->value, m->vocab, &why);
    return st ? err_set(e, st, "%s: %.180s", g->field, why.text) : ST_OK;
}

int http_prompt_make(struct http_prompt *p, const struct http_model *m, enum api_endpoint endpoint,
                     struct str body, struct err *e)
{
    *p = (struct http_prompt){0};
    struct api_request *r = &p->request;
    int st = api_parse(r, endpoint, body, &m->api, e);
    if (st)
        return st;
    if (r->model.n && !http_model_serves(m, r->model))
        return http_model_unknown(m, r->model, e);
    if (r->sampling.ignore_eos && r->n_stop_tokens)
        return err_set(e, ST_EUNSUP, "stop_token_ids: not supported beside ignore_eos");
    if (r->n_stop_tokens + m->n_eog > ENGINE_STOP_TOKENS_MAX)
        return err_set(e, ST_EINVAL, "stop_token_ids: more than %u entries beside the model's own %u",
                       ENGINE_STOP_TOKENS_MAX - m->n_eog, m->n_eog);
    uint32_t n = endpoint == API_CHAT ? 1 : r->n_prompts;
    p->list = mem_zalloc(n, sizeof *p->list);
    if (!p->list)
        return err_set(e, ST_ENOMEM, "out of memory");
    p->n = n;
    st = compile_guide(p, m, e);
    if (endpoint == API_CHAT && !st)
        st = render(p, m, e);
    for (uint32_t i = 0; i < n && !st; i++) {
        struct http_tokens *t = &p->list[i];
        if (endpoint == API_COMPLETIONS && r->prompts[i].ids) {
            t->ids = r->prompts[i].ids;
            t->n = r->prompts[i].n_ids;
        } else if (endpoint == API_COMPLETIONS) {
            st = encode(t, m->tok, r->prompts[i].text, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, e);
        }
        if (!st)
            st = check_length(t, m, r, e);
    }
    return st;
}

/* Choices of one prompt draw with consecutive seeds, so that a seed reproduces all of them. */
void http_prompt_fill(const struct http_prompt *p, const struct http_model *m, uint32_t index, uint64_t seed,
                      struct engine_request *r)
{
    const struct api_request *a = &p->request;
    const struct api_sampling *s = &a->sampling;
    uint32_t n = (uint32_t)s->n;
    const struct http_tokens *t = &p->list[index / n];
    *r = (struct engine_request){
        .prompt = t->ids,
        .n_prompt = t->n,
        .max_tokens = t->max_tokens,
        .temperature = (float)s->temperature,
        .top_p = s->top_p < 1e-6 ? 1e-6f : (float)s->top_p,
        .min_p = (float)s->min_p,
        .repetition = (float)s->repetition_penalty,
        .frequency = (float)s->frequency_penalty,
        .presence = (float)s->presence_penalty,
        .top_k = (uint32_t)s->top_k,
        .seed = s->has_seed ? (uint64_t)s->seed + index % n : seed,
        .ignore_eos = s->ignore_eos,
        .n_logprobs = a->logprobs,
        .grammar = p->grammar,
        .priority = a->hints.priority,
        .strict_priority = a->hints.strict_priority,
        .expected_output_tokens = a->hints.osl,
        .latency_sensitivity = (float)a->hints.latency_sensitivity,
        .iat_ms = a->hints.iat_ms,
        .salt_tag = a->salt_tag,
    };
    memcpy(r->cache_salt, a->cache_salt, sizeof r->cache_salt);
    for (uint32_t i = 0; i < a->n_stop_tokens; i++)
        r->stop_tokens[r->n_stop_tokens++] = a->stop_tokens[i];
    for (uint32_t i = 0; i < m->n_eog; i++)
        r->stop_tokens[r->n_stop_tokens++] = m->eog[i];
}

/* A call that the model chose to make is written as its template taught it, a forced one as the grammar has it. Any other form
 * that was asked for leaves no room for a call, and no form leaves room for reasoning. */
struct answer_options http_prompt_answer(const struct http_prompt *p, const struct http_model *m)
{
    const struct api_request *r = &p->request;
    struct answer_options o = {.tools = r->tools,
                               .calls = r->guide.calls ? ANSWER_ARRAY : ANSWER_CALLS_UNKNOWN};
    if (r->endpoint == API_CHAT && r->guide.kind == API_GUIDE_NONE) {
        const struct answer_form form = chat_form(m->chat);
        o.calls = form.calls;
        o.one = !r->parallel_calls;
        o.reasoning = form.reasoning;
        o.opened = p->opened;
    }
    return o;
}

void http_prompt_fini(struct http_prompt *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        mem_free(p->list[i].owned);
    mem_free(p->list);
    api_request_fini(&p->request);
    grammar_put(p->grammar);
    *p = (struct http_prompt){0};
}
