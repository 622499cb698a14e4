/* What a frontend cannot know of a model by itself stands in its card. It parses tool calls and reasoning for us, and must
 * be told how this model writes them (answer_form.h). */
#include "dyn_card.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

void dyn_card_slug(struct buf *out, const char *name)
{
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        buf_putc(out, c < 128 && (isalnum(c) || c == '_' || c == '-') ? (char)tolower(c) : '-');
    }
}

static void put_file(struct buf *out, const struct dyn_card *card, enum dyn_file_kind kind)
{
    const struct dyn_file *f = &card->files->f[kind];
    buf_puts(out, "{\"path\":");
    if (card->base_url) {
        struct buf url = {0};
        buf_printf(&url, "%s/%s", card->base_url, dyn_file_names[kind]);
        buf_put_json(out, buf_str(&url));
        out->failed = out->failed ? out->failed : url.failed;
        buf_fini(&url);
    } else {
        buf_put_json(out, str_from(f->path));
    }
    buf_puts(out, ",\"checksum\":\"blake3:");
    for (int i = 0; i < HASH_BYTES; i++)
        buf_printf(out, "%02x", f->hash[i]);
    buf_printf(out, "\",\"size\":%" PRIu64 "}", f->size);
}

static void put_files(struct buf *out, const struct dyn_card *card)
{
    static const struct {
        const char *lead, *tail;
    } form[DYN_FILES] = {
        [DYN_FILE_CONFIG] = {",\"model_info\":{\"hf_config_json\":", "}"},
        [DYN_FILE_TOKENIZER] = {",\"tokenizer\":{\"hf_tokenizer_json\":", "}"},
        [DYN_FILE_TOKENIZER_CONFIG] = {",\"prompt_formatter\":{\"hf_tokenizer_config_json\":", "}"},
        [DYN_FILE_GENERATION] = {",\"gen_config\":{\"hf_generation_config_json\":", "}"},
        [DYN_FILE_TEMPLATE] = {",\"chat_template_file\":{\"hf_chat_template\":{\"is_custom\":true,\"file\":",
                               "}}"},
    };
    for (int i = 0; i < DYN_FILES; i++) {
        if (!card->files->f[i].path)
            continue;
        buf_puts(out, form[i].lead);
        put_file(out, card, (enum dyn_file_kind)i);
        buf_puts(out, form[i].tail);
    }
}

static void put_parser(struct buf *out, const char *key, const char *name)
{
    if (name)
        buf_printf(out, ",\"%s\":\"%s\"", key, name);
    else
        buf_printf(out, ",\"%s\":null", key);
}

static void put_runtime(struct buf *out, const struct dyn_card *c)
{
    buf_printf(out,
               ",\"runtime_config\":{\"context_length\":%u,\"total_kv_blocks\":%u,\"max_num_seqs\":%u,"
               "\"max_num_batched_tokens\":%u",
               c->context_length, c->n_blocks, c->max_num_seqs, c->max_num_batched_tokens);
    put_parser(out, "tool_call_parser", c->tool_parser);
    put_parser(out, "reasoning_parser", c->reasoning_parser);
    buf_printf(out,
               ",\"data_parallel_start_rank\":0,\"data_parallel_size\":1,\"enable_local_indexer\":%s,"
               "\"kv_event_publishing_enabled\":%s}",
               c->kv_events ? "true" : "false", c->kv_events ? "true" : "false");
}

/* source_path enters the sum by which frontends tell equal workers, so it is the name: the same on every machine. */
static void put_card(struct buf *out, const struct dyn_card *c)
{
    struct buf slug = {0};
    dyn_card_slug(&slug, c->name);
    buf_puts(out, "{\"display_name\":");
    buf_put_json(out, str_from(c->name));
    buf_puts(out, ",\"slug\":");
    buf_put_json(out, buf_str(&slug));
    buf_puts(out, ",\"source_path\":");
    buf_put_json(out, str_from(c->name));
    put_files(out, c);
    buf_printf(out,
               ",\"architectural_max_context_length\":%u,\"context_length\":%u,\"kv_cache_block_size\":%u,"
               "\"migration_limit\":%u,"
               "\"model_type\":\"%s\",\"model_input\":\"Tokens\",\"worker_type\":\"aggregated\",\"needs\":[]",
               c->context_max, c->context_length, c->block_tokens, c->migration_limit,
               c->chat ? "Chat | Completions" : "Completions");
    put_runtime(out, c);
    buf_putc(out, '}');
    out->failed = out->failed ? out->failed : slug.failed;
    buf_fini(&slug);
}

void dyn_card_record(struct dyn_record *out, const struct dyn_self *self, const struct dyn_card *card)
{
    *out = (struct dyn_record){.bucket = DYN_CARDS};
    dyn_record_key(&out->key, self, NULL);
    buf_printf(&out->value,
               "{\"type\":\"Model\",\"namespace\":\"%s\",\"component\":\"%s\",\"endpoint\":\"%s\",\"instance_"
               "id\":%" PRIu64,
               self->name_space, self->component, self->endpoint, self->instance);
    buf_puts(&out->value, ",\"card_json\":");
    put_card(&out->value, card);
    buf_putc(&out->value, '}');
}
