/* A chat template is a program that arrives with the model and is run on every request, on input that
 * strangers write. So it is compiled once (text -> tokens -> tree, chat_lex, chat_parse, chat_expr), kept
 * immutable, and rendered by walking the tree (chat_exec, chat_eval) with all mutable state in one struct
 * chat_run per call. Steps, output, memory and recursion are budgeted there: any template ends, quickly. */
#define _GNU_SOURCE
#include "chat.h"

#include "chat_prog.h"
#include "chat_run.h"
#include "mem.h"

#include <string.h>

enum { PROGRAM_MAX = 512 << 20 };

int chat_create(struct chat **out, struct str source, struct err *e)
{
    struct chat *c = mem_zalloc(1, sizeof *c);
    if (!c)
        return err_set(e, ST_ENOMEM, "chat template: out of memory");
    c->form = answer_form_find(source);
    c->pool.limit = PROGRAM_MAX;
    struct chat_token *tokens = NULL;
    int st = chat_lex(c, source, &tokens, e);
    if (!st)
        st = chat_parse(c, tokens, e);
    if (st) {
        chat_destroy(c);
        return st;
    }
    *out = c;
    return ST_OK;
}

void chat_destroy(struct chat *c)
{
    if (!c)
        return;
    chat_pool_fini(&c->pool);
    mem_free(c);
}

struct answer_form chat_form(const struct chat *c)
{
    return c->form;
}

static void set_token(struct chat_run *r, uint32_t name, struct str token)
{
    if (token.n)
        r->globals[name] = TEXT(token.p, token.n);
}

static void set_kwargs(struct chat_run *r, const cJSON *kwargs)
{
    if (!cJSON_IsObject(kwargs))
        return;
    for (const cJSON *k = kwargs->child; k && !r->st; k = k->next) {
        uint32_t name = chat_name_find(r->c, k->string, (uint32_t)strlen(k->string));
        if (name != UINT32_MAX)
            r->globals[name] = chat_from_cjson(r, k);
    }
}

static void set_input(struct chat_run *r, const struct chat_input *in)
{
    chat_globals_init(r);
    set_token(r, NAME_bos_token, in->bos_token);
    set_token(r, NAME_eos_token, in->eos_token);
    set_token(r, NAME_unk_token, in->unk_token);
    set_token(r, NAME_pad_token, in->pad_token);
    set_kwargs(r, in->kwargs);
    r->globals[NAME_messages] = chat_from_cjson(r, in->messages);
    r->globals[NAME_tools] = chat_from_cjson(r, in->tools);
    r->globals[NAME_documents] = chat_from_cjson(r, in->documents);
    r->globals[NAME_add_generation_prompt] = BOOL(in->add_generation_prompt);
}

int chat_render(const struct chat *c, const struct chat_input *in, struct buf *out, struct err *e)
{
    struct chat_run r = {.c = c, .out = out, .out_base = out->n, .now_s = in->now_s, .e = e, .line = 1};
    r.piped = UNDEF;
    r.pool.limit = CHAT_MEMORY_MAX;
    if (out->failed)
        return err_set(e, out->failed, "chat template: %s", status_text(out->failed));
    r.globals = chat_take(&r, c->n_names * sizeof *r.globals);
    if (r.globals) {
        memset(r.globals, 0, c->n_names * sizeof *r.globals);
        set_input(&r, in);
        chat_exec(&r, c->body);
    }
    if (r.st && out->p) {
        out->n = r.out_base;
        out->p[out->n] = 0;
    }
    chat_pool_fini(&r.pool);
    return r.st;
}
