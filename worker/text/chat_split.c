/* Methods of str that cut it: strip, split, splitlines, partition. What they return borrows the bytes of the string that was
 * cut; only lists are made. */
#include "chat_run.h"

#include "chat_text.h"

#include <string.h>

bool chat_need_str(struct chat_run *r, struct value v)
{
    if (v.kind != V_STR)
        chat_fail(r, ST_EINVAL, "expected str, not %s", v.kind == V_UNSET ? "nothing" : chat_type_name(v));
    return !r->st;
}

struct value chat_sub(struct value self, size_t from, size_t to)
{
    struct value v = TEXT(self.u.s + from, to - from);
    v.flag = self.flag;
    return v;
}

static bool in_set(struct value set, const char *p, size_t n)
{
    return chat_text_find(set.u.s, set.n, p, n) >= 0;
}

static struct value strip_set(struct chat_run *r, struct value self, struct value set, int sides)
{
    size_t from = 0, to = self.n;
    if (!chat_need_str(r, set) || !chat_charge(r, (size_t)self.n * (1 + set.n / 16)))
        return UNDEF;
    uint32_t cp;
    while ((sides & 1) && from < to) {
        size_t len = (size_t)chat_text_next(self.u.s + from, to - from, &cp);
        if (!in_set(set, self.u.s + from, len))
            break;
        from += len;
    }
    while ((sides & 2) && to > from) {
        size_t at = to - 1;
        while (at > from && to - at < 4 && ((unsigned char)self.u.s[at] & 0xc0) == 0x80)
            at--;
        if (!in_set(set, self.u.s + at, to - at))
            break;
        to = at;
    }
    return chat_sub(self, from, to);
}

static struct value strip_sides(struct chat_run *r, struct value self, const struct chat_args *a, int sides)
{
    if (a->pos[0].kind != V_UNSET && a->pos[0].kind != V_NONE)
        return strip_set(r, self, a->pos[0], sides);
    chat_charge(r, self.n);
    size_t to = sides & 2 ? chat_text_rstrip(self.u.s, self.n) : self.n;
    return chat_sub(self, sides & 1 ? chat_text_lstrip(self.u.s, to) : 0, to);
}

struct value chat_str_strip(struct chat_run *r, struct value self, const struct chat_args *a)
{
    return strip_sides(r, self, a, 3);
}

struct value chat_str_lstrip(struct chat_run *r, struct value self, const struct chat_args *a)
{
    return strip_sides(r, self, a, 1);
}

struct value chat_str_rstrip(struct chat_run *r, struct value self, const struct chat_args *a)
{
    return strip_sides(r, self, a, 2);
}

static void split_space(struct chat_run *r, struct value self, int64_t max, struct value list)
{
    size_t at = chat_text_lstrip(self.u.s, self.n);
    while (at < self.n && !r->st) {
        if (max-- == 0) {
            chat_list_push(r, list, chat_sub(self, at, self.n));
            return;
        }
        size_t end = at;
        uint32_t cp = 0;
        while (end < self.n) {
            size_t len = (size_t)chat_text_next(self.u.s + end, self.n - end, &cp);
            if (chat_text_space(cp))
                break;
            end += len;
        }
        chat_list_push(r, list, chat_sub(self, at, end));
        at = end + chat_text_lstrip(self.u.s + end, self.n - end);
    }
}

static void split_on(struct chat_run *r, struct value self, struct value sep, int64_t max, struct value list)
{
    size_t at = 0;
    while (!r->st) {
        int64_t next = max-- == 0 ? -1 : chat_text_find(self.u.s + at, self.n - at, sep.u.s, sep.n);
        chat_list_push(r, list, chat_sub(self, at, next < 0 ? self.n : at + (size_t)next));
        if (next < 0)
            return;
        at += (size_t)next + sep.n;
    }
}

static void reverse(struct value list)
{
    struct chat_list *l = list.u.list;
    for (uint32_t i = 0; i < l->n / 2; i++) {
        struct value t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
}

static void rsplit_on(struct chat_run *r, struct value self, struct value sep, int64_t max, struct value list)
{
    size_t end = self.n;
    while (!r->st) {
        chat_charge(r, end * (sep.n / 64));
        int64_t next = max-- == 0 || r->st ? -1 : chat_text_rfind(self.u.s, end, sep.u.s, sep.n);
        chat_list_push(r, list, chat_sub(self, next < 0 ? 0 : (size_t)next + sep.n, end));
        if (next < 0)
            break;
        end = (size_t)next;
    }
    if (!r->st)
        reverse(list);
}

static void rsplit_space(struct chat_run *r, struct value self, int64_t max, struct value list)
{
    size_t end = chat_text_rstrip(self.u.s, self.n), from = chat_text_lstrip(self.u.s, self.n);
    while (end > from && !r->st) {
        size_t at = end;
        if (max-- == 0) {
            chat_list_push(r, list, chat_sub(self, 0, end));
            break;
        }
        while (at > from) {
            size_t b = at - 1;
            while (b > from && ((unsigned char)self.u.s[b] & 0xc0) == 0x80)
                b--;
            uint32_t cp;
            chat_text_next(self.u.s + b, self.n - b, &cp);
            if (chat_text_space(cp))
                break;
            at = b;
        }
        chat_list_push(r, list, chat_sub(self, at, end));
        end = at > from ? chat_text_rstrip(self.u.s, at) : from;
    }
    if (!r->st)
        reverse(list);
}

static struct value split(struct chat_run *r, struct value self, const struct chat_args *a, bool right)
{
    struct value sep = a->pos[0], list = chat_list_make(r, V_LIST, 0);
    int64_t max = -1;
    if (a->pos[1].kind == V_INT || a->pos[1].kind == V_BOOL)
        max = chat_integer(a->pos[1]);
    else if (a->pos[1].kind != V_UNSET)
        return chat_fail(r, ST_EINVAL, "maxsplit must be an integer");
    if (!chat_charge(r, self.n))
        return UNDEF;
    if (sep.kind == V_UNSET || sep.kind == V_NONE) {
        if (right)
            rsplit_space(r, self, max, list);
        else
            split_space(r, self, max, list);
        return list;
    }
    if (!chat_need_str(r, sep))
        return UNDEF;
    if (sep.n == 0)
        return chat_fail(r, ST_EINVAL, "empty separator");
    if (right)
        rsplit_on(r, self, sep, max, list);
    else
        split_on(r, self, sep, max, list);
    return list;
}

struct value chat_str_split(struct chat_run *r, struct value self, const struct chat_args *a)
{
    return split(r, self, a, false);
}

struct value chat_str_rsplit(struct chat_run *r, struct value self, const struct chat_args *a)
{
    return split(r, self, a, true);
}

struct value chat_str_splitlines(struct chat_run *r, struct value self, const struct chat_args *a)
{
    struct value list = chat_list_make(r, V_LIST, 0);
    bool keep = chat_truth(r, a->pos[0]);
    size_t from = 0;
    chat_charge(r, self.n);
    for (size_t i = 0; i < self.n && !r->st;) {
        uint32_t cp;
        size_t end = i;
        i += (size_t)chat_text_next(self.u.s + i, self.n - i, &cp);
        if (!chat_text_line_end(cp))
            continue;
        if (cp == '\r' && i < self.n && self.u.s[i] == '\n')
            i++;
        chat_list_push(r, list, chat_sub(self, from, keep ? i : end));
        from = i;
    }
    if (from < self.n)
        chat_list_push(r, list, chat_sub(self, from, self.n));
    return list;
}

static struct value partition(struct chat_run *r, struct value self, struct value sep, bool right)
{
    if (!chat_need_str(r, sep) || !chat_charge(r, (size_t)self.n * (8 + sep.n / 16)))
        return UNDEF;
    if (sep.n == 0)
        return chat_fail(r, ST_EINVAL, "empty separator");
    int64_t at = right ? chat_text_rfind(self.u.s, self.n, sep.u.s, sep.n)
                       : chat_text_find(self.u.s, self.n, sep.u.s, sep.n);
    struct value t = chat_list_make(r, V_TUPLE, 3);
    size_t i = at < 0 ? (right ? 0 : self.n) : (size_t)at, after = at < 0 ? i : i + sep.n;
    chat_list_push(r, t, chat_sub(self, 0, i));
    chat_list_push(r, t, chat_sub(self, i, after));
    chat_list_push(r, t, chat_sub(self, after, self.n));
    return t;
}

struct value chat_str_partition(struct chat_run *r, struct value self, const struct chat_args *a)
{
    return partition(r, self, a->pos[0], false);
}

struct value chat_str_rpartition(struct chat_run *r, struct value self, const struct chat_args *a)
{
    return partition(r, self, a->pos[0], true);
}
