/* Variable names become small integers at compile time, so that a lookup while rendering compares numbers and
 * the outermost scope is a plain array. The names that the interpreter itself knows come first, at fixed ids.
 * */
#include "chat_prog.h"

#include <string.h>

static uint32_t hash(const char *p, uint32_t n)
{
    uint32_t h = 2166136261u;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)p[i]) * 16777619u;
    return h;
}

/* The place of the name in the index, or the empty place where it belongs. */
static uint32_t place(const struct chat *c, const char *p, uint32_t n)
{
    uint32_t at = hash(p, n) & (c->cap_index - 1);
    while (c->index[at]) {
        const struct value *v = &c->names[c->index[at] - 1];
        if (v->n == n && memcmp(v->u.s, p, n) == 0)
            break;
        at = (at + 1) & (c->cap_index - 1);
    }
    return at;
}

uint32_t chat_name_find(const struct chat *c, const char *p, uint32_t n)
{
    if (!c->cap_index)
        return UINT32_MAX;
    uint32_t id = c->index[place(c, p, n)];
    return id ? id - 1 : UINT32_MAX;
}

static bool grow(struct chat *c)
{
    uint32_t cap = c->cap_names ? c->cap_names * 2 : 128;
    struct value *names = chat_pool_take(&c->pool, cap * sizeof *names);
    uint32_t *index = chat_pool_take(&c->pool, 4 * cap * sizeof *index);
    if (!names || !index)
        return false;
    if (c->n_names)
        memcpy(names, c->names, c->n_names * sizeof *names);
    memset(index, 0, 4 * cap * sizeof *index);
    c->names = names;
    c->index = index;
    c->cap_names = cap;
    c->cap_index = 4 * cap;
    for (uint32_t i = 0; i < c->n_names; i++)
        c->index[place(c, names[i].u.s, names[i].n)] = i + 1;
    return true;
}

uint32_t chat_name_intern(struct chat *c, struct value name)
{
    uint32_t id = chat_name_find(c, name.u.s, name.n);
    if (id != UINT32_MAX)
        return id;
    if (c->n_names == c->cap_names && !grow(c))
        return UINT32_MAX;
    c->names[c->n_names] = name;
    c->index[place(c, name.u.s, name.n)] = c->n_names + 1;
    return c->n_names++;
}
