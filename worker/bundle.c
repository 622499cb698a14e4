/* The one place that knows both file formats and text: the GGUF reader knows no vocabulary, the tokenizer no GGUF. */
#define _GNU_SOURCE
#include "bundle.h"
#include "bundle_vocab.h"

#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The whole of a regular file. ST_ENOENT without text when there is none: the caller knows whether it must be there. */
static int read_file(const char *path, size_t max, struct buf *out, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? ST_ENOENT : err_set(e, ST_EIO, "%s: %s", path, strerror(errno));
    struct stat s;
    int st = ST_OK;
    if (fstat(fd, &s) || !S_ISREG(s.st_mode))
        st = err_set(e, ST_EIO, "%s: not a regular file", path);
    else if ((uint64_t)s.st_size > max)
        st = err_set(e, ST_ETOOBIG, "%s: %lld bytes, limit %zu", path, (long long)s.st_size, max);
    else if (buf_reserve(out, (size_t)s.st_size))
        st = err_set(e, ST_ENOMEM, "%s: no memory for %lld bytes", path, (long long)s.st_size);
    while (!st && out->n < (size_t)s.st_size) {
        ssize_t n = read(fd, out->p + out->n, (size_t)s.st_size - out->n);
        if (n > 0)
            out->n += (size_t)n;
        else if (n == 0)
            break;
        else if (errno != EINTR)
            st = err_set(e, ST_EIO, "%s: %s", path, strerror(errno));
    }
    if (!st)
        out->p[out->n] = 0;
    close(fd);
    return st;
}

static int set_chat(struct bundle *b, struct str source, const char *where, struct err *e)
{
    if (source.n > BUNDLE_TEMPLATE_MAX)
        return err_set(e, ST_ETOOBIG, "%s: chat template of %zu bytes, limit %d", where, source.n,
                       BUNDLE_TEMPLATE_MAX);
    struct err inner = {0};
    b->knows_developer = memmem(source.p, source.n, "developer", 9) != NULL;
    b->knows_tool_calls = memmem(source.p, source.n, "tool_calls", 10) != NULL;
    int st = chat_create(&b->chat, source, &inner);
    return st ? err_set(e, st, "%s: %.150s", where, inner.text) : ST_OK;
}

static char *dup_str(struct str s)
{
    return mem_dup(s.p, s.n);
}

static int own_template(struct bundle *b, struct str source, const char *where, struct err *e)
{
    if (source.n == 0) {
        snprintf(b->why_no_chat, sizeof b->why_no_chat,
                 "the model has no chat template; give one with --chat-template");
        return ST_OK;
    }
    return set_chat(b, source, where, e);
}

static int template_from_file(struct bundle *b, const char *path, struct err *e)
{
    struct buf text = {0};
    int st = read_file(path, BUNDLE_TEMPLATE_MAX, &text, e);
    if (st == ST_ENOENT)
        st = err_set(e, st, "--chat-template: %s: no such file", path);
    if (!st)
        st = set_chat(b, buf_str(&text), path, e);
    buf_fini(&text);
    return st;
}

/* ---- GGUF -------------------------------------------------------------------------------------------------------- */

static int tok_from_gguf(struct bundle *b, const struct gguf *g, struct err *e)
{
    struct bundle_vocab v = {0};
    struct err inner = {0};
    int st = bundle_vocab_open(&v, g, e);
    const struct tok_spec *s = &v.spec;
    if (!st && (st = tok_create_spec(&b->tok, s, &inner)))
        st = err_set(e, st, "%s: %.180s", gguf_name(g), inner.text);
    if (!st) {
        b->bos = s->bos >= 0 ? dup_str(s->tokens[s->bos]) : mem_dup("", 0);
        b->eos = s->eos >= 0 ? dup_str(s->tokens[s->eos]) : mem_dup("", 0);
        st = b->bos && b->eos ? ST_OK : err_set(e, ST_ENOMEM, "%s: no memory", gguf_name(g));
    }
    bundle_vocab_close(&v);
    return st;
}

static int open_gguf(struct bundle *b, const char *path, const struct gguf *g, bool want_template,
                     struct err *e)
{
    struct str source = {0};
    int st = tok_from_gguf(b, g, e);
    if (!st)
        st = gguf_opt_str(g, "tokenizer.chat_template", &source, e);
    if (!st && want_template)
        st = own_template(b, source, path, e);
    return st;
}

/* ---- Hugging Face folder ----------------------------------------------------------------------------------------- */

/* "bos_token": "<s>" or {"content": "<s>", ...} or null */
static char *special_token(const cJSON *config, const char *name)
{
    const cJSON *v = json_get(config, name);
    if (cJSON_IsObject(v))
        v = json_get(v, "content");
    const char *z = cJSON_IsString(v) ? v->valuestring : "";
    return mem_dup(z, strlen(z));
}

/* "chat_template": "..." or [{"name": "default", "template": "..."}, ...] */
static struct str config_template(const cJSON *config)
{
    const cJSON *v = json_get(config, "chat_template"), *item;
    if (cJSON_IsString(v))
        return str_from(v->valuestring);
    cJSON_ArrayForEach(item, v)
    {
        const cJSON *name = json_get(item, "name"), *text = json_get(item, "template");
        if (cJSON_IsString(name) && cJSON_IsString(text) && strcmp(name->valuestring, "default") == 0)
            return str_from(text->valuestring);
    }
    return (struct str){0};
}

static int read_member(const char *folder, const char *file, bool required, struct buf *out, struct err *e)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path)
        return err_set(e, ST_EINVAL, "%.100s...: path too long", folder);
    int st = read_file(path, BUNDLE_JSON_MAX, out, e);
    if (st == ST_ENOENT)
        return required ? err_set(e, st, "%s: no such file", path) : ST_OK;
    return st;
}

static int open_folder(struct bundle *b, const char *path, bool want_template, uint32_t dummy_vocab, struct err *e)
{
    struct buf tokenizer = {0}, config = {0}, jinja = {0};
    cJSON *json = NULL;
    struct err inner = {0};
    int st = read_member(path, "tokenizer.json", dummy_vocab == 0, &tokenizer, e);
    st = st ? st : read_member(path, "tokenizer_config.json", false, &config, e);
    st = st ? st : read_member(path, "chat_template.jinja", false, &jinja, e);
    if (!st && config.n && (st = json_parse(&json, buf_str(&config), &inner)))
        st = err_set(e, ST_EFORMAT, "%s/tokenizer_config.json: %.150s", path, inner.text);
    if (!st && (st = tokenizer.n || !dummy_vocab ? tok_create_json(&b->tok, buf_str(&tokenizer), buf_str(&config), &inner)
                                                 : bundle_byte_tok(&b->tok, dummy_vocab, &inner)))
        st = err_set(e, st, "%s/tokenizer.json: %.180s", path, inner.text);
    if (!st) {
        b->bos = special_token(json, "bos_token");
        b->eos = special_token(json, "eos_token");
        st = b->bos && b->eos ? ST_OK : err_set(e, ST_ENOMEM, "%s: no memory", path);
    }
    if (!st && want_template)
        st = own_template(b, jinja.n ? buf_str(&jinja) : config_template(json), path, e);
    json_free(json);
    buf_fini(&tokenizer);
    buf_fini(&config);
    buf_fini(&jinja);
    return st;
}

/* "models/SmolLM2.Q4_1.gguf" -> "SmolLM2.Q4_1"; "models/llama/" -> "llama" */
static char *default_name(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    if (end - start > 5 && strncmp(path + end - 5, ".gguf", 5) == 0)
        end -= 5;
    return mem_dup(path + start, end - start);
}

/* Of those that end a text, and of control tokens: none. */
static struct str text_of(const void *ctx, uint32_t token)
{
    const struct bundle *b = ctx;
    for (uint32_t i = 0; i < b->n_eog; i++)
        if ((uint32_t)b->eog[i] == token)
            return (struct str){0};
    return tok_bytes(b->tok, (tok_t)token, false);
}

int bundle_open(struct bundle *b, const char *path, const struct gguf *g, const char *template_path, uint32_t dummy_vocab,
                struct err *e)
{
    *b = (struct bundle){.name = default_name(path)};
    int st = b->name ? ST_OK : err_set(e, ST_ENOMEM, "%s: no memory", path);
    if (!st)
        st = g ? open_gguf(b, path, g, template_path == NULL, e)
               : open_folder(b, path, template_path == NULL, dummy_vocab, e);
    if (!st && template_path)
        st = template_from_file(b, template_path, e);
    if (!st) {
        b->n_eog = (uint32_t)tok_eog(b->tok, b->eog, BUNDLE_EOG_MAX);
        st = grammar_vocab_create(&b->vocab, tok_vocab_size(b->tok), text_of, b);
    }
    if (st)
        bundle_close(b);
    return st;
}

void bundle_close(struct bundle *b)
{
    grammar_vocab_destroy(b->vocab);
    tok_destroy(b->tok);
    chat_destroy(b->chat);
    mem_free(b->name);
    mem_free(b->bos);
    mem_free(b->eos);
    *b = (struct bundle){0};
}
