/* token -> bytes -> whole characters -> text that is no beginning of a stop string -> content, reasoning and calls. Each stage
 * holds back as little as it can and all of them are flushed at the end. What is for a stream leaves with each frame; what is for
 * a whole reply stays. */
#include "http_seq.h"

#include "mem.h"

void http_seq_init(struct http_seq *s, uint32_t slot, uint32_t gen, const struct answer_options *answer)
{
    *s = (struct http_seq){.slot = slot, .gen = gen, .open = true};
    struct answer_options o = *answer;
    o.limit = s->text.limit = s->reasoning.limit = HTTP_SEQ_TEXT_MAX;
    answer_init(&s->answer, &o);
    tok_stream_init(&s->detok, false);
}

static int keep(struct http_seq *s, const struct be_sample_out *sample)
{
    if (s->n_logs == s->cap_logs) {
        size_t cap = s->cap_logs ? 2 * s->cap_logs : 16, bytes;
        struct api_logprob *grown = mem_mul(cap, sizeof *grown, &bytes) ? mem_realloc(s->logs, bytes) : NULL;
        if (!grown)
            return ST_ENOMEM;
        s->logs = grown;
        s->cap_logs = cap;
    }
    struct api_logprob *l = &s->logs[s->n_logs++];
    l->token = sample->token;
    l->logprob = sample->logprob;
    l->n_top = sample->n_top < API_TOP_LOGPROBS_MAX ? sample->n_top : API_TOP_LOGPROBS_MAX;
    for (uint32_t i = 0; i < l->n_top; i++) {
        l->top[i].token = sample->top[i].token;
        l->top[i].logprob = sample->top[i].logprob;
    }
    return ST_OK;
}

/* `piece` as far as it is no beginning of a stop string, then as far as it is content. */
static int take_apart(struct http_seq *s, const struct stop_set *stops, bool last)
{
    buf_reset(&s->plain);
    int st = stop_push(stops, &s->scan, buf_str(&s->piece), &s->plain);
    if (!st && last)
        st = stop_flush(&s->scan, &s->plain);
    if (!st)
        st = answer_push(&s->answer, buf_str(&s->plain), &s->text, &s->reasoning);
    s->scan.hit |= s->answer.over;
    return st;
}

int http_seq_token(struct http_seq *s, const struct tok *tok, const struct stop_set *stops,
                   const struct be_sample_out *sample, bool keep_logprobs)
{
    s->n_tokens++;
    int st = keep_logprobs ? keep(s, sample) : ST_OK;
    /* some models mark their calls with control tokens, which are hidden otherwise */
    s->detok.show_special =
        tok_is_special(tok, sample->token) && answer_is_mark(&s->answer, tok_bytes(tok, sample->token, true));
    buf_reset(&s->piece);
    if (!st)
        st = tok_stream_push(&s->detok, tok, sample->token, &s->piece);
    return st ? st : take_apart(s, stops, false);
}

int http_seq_end(struct http_seq *s, const struct stop_set *stops, bool length)
{
    int st = ST_OK;
    buf_reset(&s->piece);
    if (!s->scan.hit)
        st = tok_stream_flush(&s->detok, &s->piece);
    if (!st)
        st = take_apart(s, stops, true);
    if (!st)
        st = answer_end(&s->answer, &s->text, &s->reasoning);
    s->finish = length && !s->scan.hit ? "length" : s->answer.n_calls ? "tool_calls" : "stop";
    return st;
}

static struct str token_bytes(const void *ctx, int32_t token)
{
    return tok_bytes(ctx, token, true);
}

struct api_choice http_seq_choice(const struct http_seq *s, uint32_t index, const struct tok *tok,
                                  struct api_logprobs *logs)
{
    if (logs)
        *logs = (struct api_logprobs){.entries = s->logs,
                                      .n = s->n_logs,
                                      .text_offset = s->log_offset,
                                      .bytes = token_bytes,
                                      .ctx = tok};
    return (struct api_choice){.index = index,
                               .text = buf_str(&s->text),
                               .reasoning = buf_str(&s->reasoning),
                               .logprobs = logs,
                               .calls = s->answer.calls,
                               .call = s->n_told,
                               .n_calls = s->answer.n_calls,
                               .finish = s->finish,
                               .first = !s->began};
}

/* Forgets what the frame carried. */
static void framed(struct http_seq *s, const struct tok *tok)
{
    for (size_t i = 0; i < s->n_logs; i++)
        s->log_offset += tok_bytes(tok, s->logs[i].token, true).n;
    s->n_logs = 0;
    s->n_told = s->answer.n_calls;
    s->began = true;
    buf_reset(&s->text);
    buf_reset(&s->reasoning);
}

bool http_seq_frame(struct http_seq *s, uint32_t index, const struct tok *tok, const struct api_head *head,
                    struct buf *out)
{
    bool chat = head->endpoint == API_CHAT,
         told = s->text.n || s->reasoning.n || s->n_told < s->answer.n_calls;
    if (!told && !s->finish)
        return false;
    struct api_logprobs logs;
    struct api_choice c = http_seq_choice(s, index, tok, s->n_logs ? &logs : NULL);
    if (c.first && c.finish && !told && chat) {
        /* nothing was generated: the role still comes before the finish, in a frame of its own */
        api_put_frame(out, head, &(struct api_choice){.index = index, .first = true});
        c.first = false;
    }
    if (c.finish && told && chat) {
        /* the last of the answer and the finish reason are two frames, as OpenAI's */
        struct api_choice last = c;
        last.finish = NULL;
        api_put_frame(out, head, &last);
        c = (struct api_choice){.index = index, .finish = c.finish};
    }
    api_put_frame(out, head, &c);
    framed(s, tok);
    return true;
}

void http_seq_fini(struct http_seq *s)
{
    stop_scan_fini(&s->scan);
    answer_fini(&s->answer);
    buf_fini(&s->piece);
    buf_fini(&s->plain);
    buf_fini(&s->text);
    buf_fini(&s->reasoning);
    mem_free(s->logs);
}
