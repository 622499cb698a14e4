/* A Hugging Face folder has the files that frontends want. A GGUF has what they say, under other names: here it is said
 * again in the form of those files. Nobody computes with this config.json, it is read for the end tokens and the length; the
 * template is the one in effect, so that prompts are the same through a frontend as through our own endpoint. */
#include "card.h"

#include "answer_form.h"
#include "bundle_vocab.h"
#include "tok_write.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void put_ids(struct buf *out, const char *key, const int32_t *ids, uint32_t n)
{
    buf_printf(out, "\"%s\":%s", key, n == 0 ? "null" : n > 1 ? "[" : "");
    for (uint32_t i = 0; i < n; i++)
        buf_printf(out, "%s%d", i ? "," : "", ids[i]);
    buf_puts(out, n > 1 ? "]" : "");
}

static void put_config(struct buf *out, const struct card_input *in)
{
    const struct model_info *m = model_info(in->model);
    buf_printf(
        out,
        "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"%s\",\"hidden_size\":%u,\"intermediate_"
        "size\":%u,"
        "\"num_hidden_layers\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"head_dim\":%u,"
        "\"max_position_embeddings\":%u,\"rope_theta\":%.17g,\"tie_word_embeddings\":%s,\"vocab_size\":%u,",
        m->arch, m->d, m->ffn, m->n_layers, m->n_heads, m->n_kv_heads, m->head_dim, m->context_max,
        m->rope_theta, m->tied ? "true" : "false", m->vocab);
    put_ids(out, "bos_token_id", &m->bos, m->bos >= 0);
    buf_putc(out, ',');
    put_ids(out, "eos_token_id", in->eog, in->n_eog);
    buf_putc(out, '}');
}

static void put_generation(struct buf *out, const struct card_input *in)
{
    const struct model_info *m = model_info(in->model);
    buf_putc(out, '{');
    put_ids(out, "bos_token_id", &m->bos, m->bos >= 0);
    buf_putc(out, ',');
    put_ids(out, "eos_token_id", in->eog, in->n_eog);
    buf_putc(out, '}');
}

static void put_name(struct buf *out, const char *key, struct str text)
{
    buf_printf(out, "\"%s\":", key);
    if (text.n)
        buf_put_json(out, text);
    else
        buf_puts(out, "null");
    buf_putc(out, ',');
}

static void put_tokenizer_config(struct buf *out, const struct card_input *in, const struct tok_spec *s,
                                 struct str template)
{
    buf_putc(out, '{');
    put_name(out, "bos_token", str_from(in->bundle->bos));
    put_name(out, "eos_token", str_from(in->bundle->eos));
    put_name(out, "unk_token", s->unk >= 0 ? s->tokens[s->unk] : (struct str){0});
    if (template.n)
        put_name(out, "chat_template", template);
    buf_printf(out,
               "\"add_bos_token\":%s,\"add_eos_token\":%s,\"clean_up_tokenization_spaces\":false,\"model_max_"
               "length\":%u,"
               "\"tokenizer_class\":\"PreTrainedTokenizerFast\"}",
               s->add_bos ? "true" : "false", s->add_eos ? "true" : "false",
               model_info(in->model)->context_max);
}

static int make_files(struct card *c, const struct card_input *in, const struct gguf *g, struct err *e)
{
    struct bundle_vocab v = {0};
    struct buf texts[DYN_FILE_TEMPLATE] = {{0}};
    struct str views[DYN_FILE_TEMPLATE];
    int st = bundle_vocab_open(&v, g, e);
    st = st ? st : tok_write_json(&texts[DYN_FILE_TOKENIZER], &v.spec, e);
    if (!st) {
        put_config(&texts[DYN_FILE_CONFIG], in);
        put_tokenizer_config(&texts[DYN_FILE_TOKENIZER_CONFIG], in, &v.spec, buf_str(&c->template));
        put_generation(&texts[DYN_FILE_GENERATION], in);
    }
    for (int i = 0; i < DYN_FILE_TEMPLATE; i++) {
        if (!st && texts[i].failed)
            st = err_set(e, texts[i].failed, "%s: no memory", dyn_file_names[i]);
        views[i] = buf_str(&texts[i]);
    }
    st = st ? st : dyn_files_make(&c->files, in->config->cache_dir, views, e);
    for (int i = 0; i < DYN_FILE_TEMPLATE; i++)
        buf_fini(&texts[i]);
    bundle_vocab_close(&v);
    return st;
}

/* All of a file: a template, or a configuration that holds one. */
static int read_text(const char *path, struct buf *out, struct err *e)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, ST_EIO, "%.200s: %s", path, strerror(errno));
    char chunk[4096];
    out->limit = BUNDLE_TEMPLATE_MAX;
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        buf_put(out, chunk, n);
    int st =
        ferror(f) || out->failed ? err_set(e, ST_EIO, "%.200s cannot be read, or is too long", path) : ST_OK;
    fclose(f);
    return st;
}

/* What shows how the model writes tool calls and reasoning. Escaped as JSON it still does: the marks are the same. */
static int find_template(struct card *c, const struct card_input *in, const struct gguf *g, struct err *e)
{
    const struct dyn_file *f = c->files.f;
    struct str own = {0};
    if (g && in->config->chat_template)
        return read_text(in->config->chat_template, &c->template, e);
    if (!g)
        return read_text(f[DYN_FILE_TEMPLATE].path ? f[DYN_FILE_TEMPLATE].path
                                                   : f[DYN_FILE_TOKENIZER_CONFIG].path,
                         &c->template, e);
    int st = gguf_opt_str(g, "tokenizer.chat_template", &own, e);
    return st || !own.n ? st : buf_put(&c->template, own.p, own.n);
}

static int open_files(struct card *c, const struct card_input *in, struct err *e)
{
    const struct gguf *g = model_gguf(in->model);
    if (!g) {
        int st = dyn_files_find(&c->files, in->config->model, in->config->chat_template, e);
        return st ? st : find_template(c, in, NULL, e);
    }
    int st = find_template(c, in, g, e);
    return st ? st : make_files(c, in, g, e);
}

int card_open(struct card *c, const struct card_input *in, struct err *e)
{
    const struct config *config = in->config;
    *c = (struct card){0};
    int st = open_files(c, in, e);
    if (!st && c->template.failed)
        st = err_set(e, ST_ENOMEM, "model card: no memory");
    if (st) {
        card_close(c);
        return st;
    }
    const struct answer_form form = answer_form_find(buf_str(&c->template));
    c->card = (struct dyn_card){
        .name = in->name,
        .files = &c->files,
        .chat = in->bundle->chat != NULL,
        .context_max = model_info(in->model)->context_max,
        .context_length = in->context_length,
        .block_tokens = (uint32_t)config->block_size,
        .n_blocks = in->n_blocks,
        .max_num_seqs = in->max_num_seqs,
        .max_num_batched_tokens = in->max_num_batched_tokens,
        .migration_limit = (uint32_t)config->migration_limit,
        .kv_events = !config->no_prefix_caching,
        .tool_parser = answer_form_call_parser(form.calls),
        .reasoning_parser = answer_form_reasoning_parser(form.reasoning),
    };
    return ST_OK;
}

int card_serve(struct card *c, const char *host, uint16_t port, struct err *e)
{
    bool v6 = strchr(host, ':') != NULL;
    int st = buf_printf(&c->base_url, "http://%s%s%s:%u/v1/stator/model", v6 ? "[" : "", host, v6 ? "]" : "",
                        port);
    c->card.base_url = c->base_url.p;
    return st ? err_set(e, st, "model card: no memory") : ST_OK;
}

void card_close(struct card *c)
{
    dyn_files_close(&c->files);
    buf_fini(&c->template);
    buf_fini(&c->base_url);
    *c = (struct card){0};
}
