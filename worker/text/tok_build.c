/* What both loaders share: the empty tokenizer, and everything that can be derived once names, merges and
 * flags are known. Derived tables are worked out here and not in the loaders, so that a vocabulary behaves
 * the same whichever file it came from. */
#include "tok_core.h"

#include "mem.h"

#include <string.h>

int tok_begin(struct tok *t, uint32_t n, struct err *e)
{
    t->n = n;
    t->bos = t->eos = t->unk = -1;
    for (size_t i = 0; i < 256; i++)
        t->byte_id[i] = -1;
    for (size_t i = 0; i < 128; i++)
        t->ascii_id[i] = -1;
    t->flags = mem_zalloc((size_t)n + 1, 1);
    if (!t->flags)
        return err_set(e, ST_ENOMEM, "tokenizer: no memory");
    return tok_split_init(&t->split, e);
}

/* Byte level: the alphabet undone, unless a character is not of it, then the name as it is.
 * Character level: U+2581 is a space, <0xXX> a byte. */
static struct str word_of(const struct tok *t, uint32_t id, char *out)
{
    struct str name = tok_names_get(&t->names, id), w = {out, 0};
    int byte = t->byte_decode ? tok_byte_name(name) : -1;
    if (t->byte_level && tok_unspell(name, out, &w.n))
        return w;
    if (byte >= 0 && !t->byte_level) {
        out[0] = (char)byte;
        t->flags[id] |= TOK_IS_BYTE;
        w.n = 1;
        return w;
    }
    for (size_t i = 0; i < name.n;) {
        if (t->meta_decode && !t->byte_level && name.n - i >= 3 && memcmp(name.p + i, TOK_MARK, 3) == 0) {
            out[w.n++] = ' ';
            i += 3;
        } else {
            out[w.n++] = name.p[i++];
        }
    }
    return w;
}

static int build_words(struct tok *t)
{
    char *bytes = mem_alloc(t->names.at[t->n] + (size_t)t->n + 8), *at = bytes;
    struct str *w = mem_alloc((t->n + (size_t)1) * sizeof *w);
    int st = bytes && w ? ST_OK : ST_ENOMEM;
    for (uint32_t id = 0; !st && id < t->n; id++) {
        w[id] = word_of(t, id, at);
        at += w[id].n;
    }
    if (!st)
        st = tok_names_init(&t->words, w, t->n, t->ignore_merges && t->byte_level);
    mem_free(w);
    mem_free(bytes);
    return st;
}

static void build_bytes(struct tok *t)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        static const char hex[] = "0123456789ABCDEF";
        if (t->byte_level) {
            size_t n = (size_t)utf8_encode(tok_alphabet[b], name);
            t->byte_id[b] = tok_names_find(&t->names, (struct str){name, n});
        } else {
            memcpy(name, "<0x00>", 6);
            name[3] = hex[b >> 4];
            name[4] = hex[b & 15];
            t->byte_id[b] = tok_names_find(&t->names, (struct str){name, 6});
        }
    }
    for (int b = 0; b < 128; b++) {
        char c = (char)b;
        t->ascii_id[b] = tok_names_find(&t->names, (struct str){&c, 1});
    }
}

/* True when every merge keeps marks at the front: nothing ever joins "x" to a following mark. */
static bool marks_lead(const struct tok *t)
{
    for (uint32_t i = 0; i <= t->merges.mask; i++) {
        const struct tok_merge *m = &t->merges.slot[i];
        if (m->id < 0)
            continue;
        struct str l = tok_names_get(&t->names, (uint32_t)(m->key >> 32));
        struct str r = tok_names_get(&t->names, (uint32_t)m->key);
        if (r.n >= 3 && memcmp(r.p, TOK_MARK, 3) == 0 && (l.n < 3 || memcmp(l.p + l.n - 3, TOK_MARK, 3) != 0))
            return false;
    }
    return true;
}

int tok_finish(struct tok *t, struct err *e)
{
    if (!t->merges.slot && tok_merges_init(&t->merges, 0))
        return err_set(e, ST_ENOMEM, "tokenizer: no memory");
    int st = build_words(t);
    if (st)
        return err_set(e, st, "tokenizer: no memory for the vocabulary");
    build_bytes(t);
    t->cut_at_mark = !t->byte_level && !t->ignore_merges && t->split.n == 0 && marks_lead(t);
    tok_added_seal(&t->raw);
    tok_added_seal(&t->cooked);
    return ST_OK;
}
