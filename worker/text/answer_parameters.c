/* Values are text as it is, with nothing escaped, so that a program or a document may hold the very marks that end it. What ends
 * a value is the first </parameter>; models forget it at times, and then go on in the next line: <parameter= and </function> end
 * a value where they begin a line, and anywhere else they are a part of it. A value that has such a line, or a </parameter> with
 * a mark behind it, cannot be told from one that ends there.
 *
 * The text is read twice by the same machine: as it arrives, to know when the call is whole or cannot become one, and then to
 * cut it. Rejected: to cut it by searching (the rule a second time, and quadratic where marks are missing), and to let a value go
 * on behind a </parameter> where nothing fits (a call that was broken off would swallow the next).
 *
 * Values have no types: `type` in the tool's schema says which are JSON. The schema is the client's and may be as long as a
 * request, so it is walked once a call, and its names are searched for among those of the call. */
#include "answer_parameters.h"

#include <string.h>

enum state { BETWEEN, NAME, VALUE };
enum mark { CLOSE, OPEN, END, MARKS };
static const char marks[MARKS][ANSWER_MARK_MAX] = {
    [CLOSE] = "</parameter>", [OPEN] = "<parameter=", [END] = "</function>"};

/* ---- the machine ------------------------------------------------------------------------------------------------- */

/* The mark that goes on with `c` behind the bytes that were matched, or MARKS. */
static enum mark matching(const struct answer_parameters *p, char c)
{
    enum mark first = p->state == VALUE ? CLOSE : OPEN, end = p->state == VALUE && !p->line ? OPEN : MARKS;
    for (enum mark m = first; m < end; m++)
        if (memcmp(marks[m], marks[p->mark], p->at) == 0 && marks[m][p->at] == c)
            return m;
    return MARKS;
}

static enum answer_feed take_mark(struct answer_parameters *p)
{
    p->ended = p->state == VALUE;
    p->end = p->n - p->at;
    p->at = 0;
    p->opened = p->n;
    p->state = p->mark == OPEN ? NAME : BETWEEN;
    return p->mark == END ? ANSWER_DONE : ANSWER_MORE;
}

static enum answer_feed in_name(struct answer_parameters *p, char c)
{
    if (c == '\n' || c == '<')
        return ANSWER_BAD;
    if (c == '>') {
        p->name = p->opened;
        p->value = p->n;
        p->state = VALUE;
        p->line = false;
    }
    return ANSWER_MORE;
}

/* No mark has its first byte a second time: a broken one can only begin again at the byte that broke it. */
static void in_value(struct answer_parameters *p, char c)
{
    if (p->at) {
        p->at = 0;
        p->line = false;
        if (c == marks[CLOSE][0]) {
            p->mark = CLOSE;
            p->at = 1;
            return;
        }
    }
    p->line = c == '\n';
}

enum answer_feed answer_parameters_feed(struct answer_parameters *p, char c)
{
    p->n++;
    p->ended = false;
    if (c == 0) /* what no request may say is no call: a client sends it back with the next one */
        return ANSWER_BAD;
    if (p->state == NAME)
        return in_name(p, c);
    enum mark m = matching(p, c);
    if (m != MARKS) {
        p->mark = (uint8_t)m;
        return marks[m][++p->at] ? ANSWER_MORE : take_mark(p);
    }
    if (p->state == BETWEEN)
        return p->at == 0 && answer_json_space(c) ? ANSWER_MORE : ANSWER_BAD;
    in_value(p, c);
    return ANSWER_MORE;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

struct parameter {
    struct str name, value;
    const cJSON *schema;
};

struct list {
    struct parameter all[ANSWER_PARAMETERS_MAX]; /* [n], as they were written */
    uint8_t sorted[ANSWER_PARAMETERS_MAX];       /* [n], by name */
    uint32_t n;
};

static int compare(struct str a, struct str b)
{
    int order = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

/* NULL: it is not there, and would be at *at of those sorted. */
static struct parameter *find(struct list *l, struct str name, uint32_t *at)
{
    uint32_t from = 0, to = l->n;
    while (from < to) {
        uint32_t middle = (from + to) / 2;
        struct parameter *p = &l->all[l->sorted[middle]];
        int order = compare(name, p->name);
        if (order == 0)
            return p;
        if (order < 0)
            to = middle;
        else
            from = middle + 1;
    }
    *at = from;
    return NULL;
}

static bool set(struct list *l, struct str name, struct str value)
{
    uint32_t at;
    struct parameter *p = find(l, name, &at);
    if (!p) {
        if (l->n == ANSWER_PARAMETERS_MAX)
            return false;
        memmove(&l->sorted[at + 1], &l->sorted[at], l->n - at);
        l->sorted[at] = (uint8_t)l->n;
        p = &l->all[l->n++];
    }
    *p = (struct parameter){.name = name, .value = value};
    return true;
}

static bool cut(struct list *l, struct str body)
{
    struct answer_parameters p = {0};
    bool room = true;
    for (size_t i = 0; i < body.n && room; i++) {
        answer_parameters_feed(&p, body.p[i]);
        if (p.ended)
            room = set(l, (struct str){body.p + p.name, p.value - 1 - p.name},
                       (struct str){body.p + p.value, p.end - p.value});
    }
    return room;
}

static void find_schemas(struct list *l, const cJSON *function)
{
    const cJSON *properties = json_get(json_get(function, "parameters"), "properties");
    uint32_t at;
    for (const cJSON *s = cJSON_IsObject(properties) ? properties->child : NULL; s; s = s->next) {
        struct parameter *p = find(l, str_from(s->string), &at);
        if (p && !p->schema)
            p->schema = s;
    }
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

enum {
    TEXT = 1,
    NOTHING = 2,
    BOOLEAN = 4,
    INTEGER = 8,
    FRACTION = 16,
    ARRAY = 32,
    OBJECT = 64,
    JSON = NOTHING | BOOLEAN | INTEGER | FRACTION | ARRAY | OBJECT
};

static unsigned type_kinds(const char *type)
{
    static const struct {
        const char *type;
        unsigned kinds;
    } types[] = {{"string", TEXT},
                 {"null", NOTHING},
                 {"boolean", BOOLEAN},
                 {"integer", INTEGER},
                 {"number", INTEGER | FRACTION},
                 {"array", ARRAY},
                 {"object", OBJECT}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i].type) == 0)
            return types[i].kinds;
    return JSON; /* "float", "dict": somebody's own */
}

/* What the schema lets a value be. One that has no type ($ref, properties alone) has structure at best. */
static unsigned kinds(const cJSON *schema)
{
    static const char *const unions[] = {"anyOf", "oneOf"};
    const cJSON *type = json_get(schema, "type");
    unsigned found = 0;
    for (const cJSON *t = cJSON_IsArray(type) ? type->child : type; t; t = t == type ? NULL : t->next)
        if (cJSON_IsString(t))
            found |= type_kinds(t->valuestring);
    for (size_t i = 0; i < sizeof unions / sizeof *unions; i++) {
        const cJSON *list = json_get(schema, unions[i]);
        for (const cJSON *s = cJSON_IsArray(list) ? list->child : NULL; s; s = s->next)
            found |= kinds(s);
    }
    return found ? found : ARRAY | OBJECT;
}

/* What a JSON value is; text is none. */
static unsigned kind_of(struct str json)
{
    switch (json.n ? json.p[0] : 0) {
    case '{':
        return OBJECT;
    case '[':
        return ARRAY;
    case 't':
    case 'f':
        return BOOLEAN;
    case 'n':
        return NOTHING;
    default:
        for (size_t i = 0; i < json.n; i++)
            if (strchr(".eE", json.p[i]))
                return FRACTION;
        return INTEGER;
    }
}

/* One line feed at each end belongs to the marks. */
static struct str without_marks(struct str s)
{
    if (s.n && s.p[0] == '\n')
        s = (struct str){s.p + 1, s.n - 1};
    if (s.n && s.p[s.n - 1] == '\n')
        s.n--;
    return s;
}

static struct str trimmed(struct str s)
{
    while (s.n && answer_json_space(s.p[0]))
        s = (struct str){s.p + 1, s.n - 1};
    while (s.n && answer_json_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* Templates print Python's words where they print a value that is no string. */
static struct str json_word(struct str s)
{
    return str_eqz(s, "None")    ? STR_LIT("null")
           : str_eqz(s, "True")  ? STR_LIT("true")
           : str_eqz(s, "False") ? STR_LIT("false")
                                 : s;
}

/* Where text will do, all is text but null. */
static void put_value(struct buf *out, const cJSON *schema, struct str value)
{
    unsigned kind = schema ? kinds(schema) : TEXT;
    struct str json = json_word(trimmed(value));
    if (kind & TEXT)
        kind &= NOTHING;
    if (json.n && json.p[0] != '"' && kind & kind_of(json) && answer_json_whole(json))
        answer_json_copy(json, out);
    else
        buf_put_json(out, without_marks(value));
}

bool answer_parameters_put(const cJSON *function, struct str body, struct buf *arguments)
{
    struct list l;
    l.n = 0;
    if (!cut(&l, body))
        return false;
    find_schemas(&l, function);
    buf_putc(arguments, '{');
    for (uint32_t i = 0; i < l.n; i++) {
        if (i)
            buf_putc(arguments, ',');
        buf_put_json(arguments, l.all[i].name);
        buf_putc(arguments, ':');
        put_value(arguments, l.all[i].schema, l.all[i].value);
    }
    buf_putc(arguments, '}');
    return true;
}
