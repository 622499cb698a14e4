/* Bytes go through a small machine. Whatever may yet be part of a call is held back, from the first byte of a mark on; it leaves
 * as a call when the call is whole, or as content at the byte with which it cannot become one. Content is never read again, so
 * the work is linear in the text, whatever a model is talked into writing.
 *
 * A form is a table of marks: which text begins or closes a call at which place of the answer. No mark has its first byte a
 * second time, so that a broken one can only begin again at the byte that broke it. A call is whole when its value is: what
 * stands around it (closing marks, separators, white space) is dropped where it is seen and not waited for.
 *
 * Rejected: to look for the marks in the whole text again with each piece, as the parsers in Python do (quadratic), and to stream
 * the arguments of a call while they are written (whether it is one of the offered tools and valid JSON is known at its end). */
#include "answer.h"

#include "answer_call.h"
#include "mem.h"

#include <string.h>

enum phase { TEXT, REASONING, HEAD, TAG, NAME, VALUE, BODY };

/* Where the text is, as bits: which marks are valid there. */
enum place {
    START = 1,      /* nothing but white space so far */
    FREE = 2,       /* in content */
    BEHIND = 4,     /* nothing but white space since a call */
    IN_LIST = 8,    /* the same, and the call was an element of an array */
    SEPARATED = 16, /* the same, and what separates calls */
    REASONED = 32,  /* nothing but white space since reasoning */
    FRAMING = BEHIND | IN_LIST | SEPARATED | REASONED,
    ANY = START | FREE | FRAMING
};

enum action {
    OPEN,     /* a value follows, or a name */
    OPEN_TAG, /* <function= follows */
    FUNCTION, /* the function's name follows, up to '>' */
    OBJECT,   /* it is the value's first byte */
    ELEMENT,  /* a value of an array follows */
    CLOSE,
    SEPARATE,
    THINK
};

struct mark {
    const char *text;
    uint8_t places, action;
};

enum { MARKS_MAX = 4 };
static const char FUNCTION_MARK[] = "<function=";

static const struct mark forms[][MARKS_MAX] = {
    [ANSWER_HERMES] = {{"<tool_call>", ANY, OPEN}, {"</tool_call>", BEHIND, CLOSE}},
    [ANSWER_QWEN3_CODER] = {{"<tool_call>", ANY, OPEN_TAG},
                            {FUNCTION_MARK, ANY, FUNCTION}, /* some forget the outer mark */
                            {"</tool_call>", BEHIND, CLOSE}},
    [ANSWER_MISTRAL] = {{"[TOOL_CALLS]", ANY, OPEN}, {"[/TOOL_CALLS]", BEHIND, CLOSE}},
    [ANSWER_LLAMA3_JSON] = {{"<|python_tag|>", ANY, OPEN},
                            {"{", START | SEPARATED | REASONED, OBJECT},
                            {";", BEHIND, SEPARATE}},
    [ANSWER_JAMBA] = {{"<tool_calls>", ANY, OPEN}, {"</tool_calls>", BEHIND, CLOSE}},
    [ANSWER_ARRAY] = {{"[", START, ELEMENT}},
};
static const struct mark list_marks[] = {{",", IN_LIST, ELEMENT}, {"]", IN_LIST, CLOSE}};

void answer_init(struct answer *a, const struct answer_options *o)
{
    *a = (struct answer){.o = *o, .place = START, .held.limit = o->limit};
    a->phase = o->opened && o->reasoning ? REASONING : TEXT;
    if (!o->tools || o->calls >= sizeof forms / sizeof *forms || !forms[o->calls][0].text)
        a->o.calls = ANSWER_CALLS_UNKNOWN;
}

void answer_fini(struct answer *a)
{
    for (uint32_t i = 0; i < a->n_calls; i++)
        mem_free((char *)a->calls[i].arguments.p);
    mem_free(a->calls);
    buf_fini(&a->held);
}

bool answer_is_mark(const struct answer *a, struct str name)
{
    const struct mark *marks = forms[a->o.calls];
    const char *const *think = answer_form_think[a->o.reasoning];
    if (a->o.calls == ANSWER_MISTRAL && (str_eqz(name, "[ARGS]") || str_eqz(name, "[CALL_ID]")))
        return true;
    if (a->o.reasoning && (str_eqz(name, think[0]) || str_eqz(name, think[1])))
        return true;
    for (int i = 0; i < MARKS_MAX && marks[i].text; i++)
        if (str_eqz(name, marks[i].text))
            return true;
    return false;
}

/* ---- content ----------------------------------------------------------------------------------------------------- */

static void keep(struct answer *a, char c)
{
    buf_putc(&a->held, c);
}

static void forget(struct answer *a)
{
    a->held.n = a->blank = a->at = 0;
    a->phase = TEXT;
}

/* All that is held is content. */
static void release(struct answer *a, struct buf *content)
{
    if (a->held.n)
        a->place = FREE;
    buf_put(content, a->held.p, a->held.n);
    a->listed = false;
    forget(a);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static void fail(struct answer *a, int status)
{
    if (!a->failed)
        a->failed = status;
}

static bool grow(struct answer *a)
{
    if (a->n_calls < a->cap_calls)
        return true;
    uint32_t cap = a->cap_calls ? 2 * a->cap_calls : 4;
    struct answer_call *grown = mem_realloc(a->calls, cap * sizeof *grown);
    if (!grown) {
        fail(a, ST_ENOMEM);
        return false;
    }
    a->calls = grown;
    a->cap_calls = cap;
    return true;
}

/* Takes the arguments' memory. What is held was the call. */
static void told(struct answer *a, const cJSON *function, struct buf *arguments)
{
    if (arguments->failed || !grow(a)) {
        fail(a, arguments->failed);
        buf_fini(arguments);
        return;
    }
    a->calls[a->n_calls++] = (struct answer_call){.name = str_from(json_get(function, "name")->valuestring),
                                                  .arguments = buf_str(arguments)};
    forget(a);
    a->place = a->listed ? IN_LIST : BEHIND;
    a->over = a->o.one;
}

static struct str body(const struct answer *a)
{
    return (struct str){a->held.p + a->body, a->held.n - a->body};
}

/* The value is whole; with a name in front of it, it is the arguments. */
static void end_value(struct answer *a, struct buf *content)
{
    struct str arguments = body(a);
    const cJSON *function = a->function;
    if (!function)
        function = answer_call_object(a->o.tools, body(a), &arguments);
    if (!function || a->n_calls == ANSWER_CALLS_MAX) {
        release(a, content);
        return;
    }
    struct buf copy = {.limit = a->o.limit};
    answer_json_copy(arguments, &copy);
    told(a, function, &copy);
}

static void end_function(struct answer *a, struct buf *content)
{
    struct buf arguments = {.limit = a->o.limit};
    if (a->n_calls < ANSWER_CALLS_MAX && answer_parameters_put(a->function, body(a), &arguments)) {
        told(a, a->function, &arguments);
        return;
    }
    buf_fini(&arguments);
    release(a, content);
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

static void enter(struct answer *a, enum phase phase)
{
    a->phase = (uint8_t)phase;
    a->body = a->held.n;
    a->at = 0;
    a->json = (struct answer_json){0};
    a->parameters = (struct answer_parameters){0};
}

static void begin_value(struct answer *a, char c)
{
    enter(a, VALUE);
    keep(a, c);
    answer_json_feed(&a->json, c);
}

/* The mark was kept with its last byte. */
static void take_mark(struct answer *a, enum action action)
{
    a->function = NULL;
    a->listed = action == ELEMENT;
    switch (action) {
    case OPEN:
    case ELEMENT:
        enter(a, HEAD);
        return;
    case OPEN_TAG:
        enter(a, TAG);
        return;
    case FUNCTION:
        enter(a, NAME);
        return;
    case OBJECT: /* the mark is the value's first byte */
        a->held.n--;
        begin_value(a, '{');
        return;
    case CLOSE:
    case SEPARATE:
        a->place = action == CLOSE ? BEHIND : SEPARATED;
        forget(a);
        return;
    case THINK:
        forget(a);
        a->phase = REASONING;
    }
}

/* The mark that goes on with `c` behind the bytes that were matched, or NULL. */
static const struct mark *matching(const struct answer *a, const struct mark *marks, size_t n, char c)
{
    const char *begun = a->at ? a->held.p + a->blank : "";
    for (size_t i = 0; i < n && marks[i].text; i++)
        if (marks[i].places & a->place && strncmp(marks[i].text, begun, a->at) == 0 &&
            marks[i].text[a->at] == c)
            return &marks[i];
    return NULL;
}

static void in_text(struct answer *a, char c, struct buf *content)
{
    const struct mark think = {answer_form_think[a->o.reasoning][0], START | BEHIND | SEPARATED | REASONED,
                               THINK};
    const struct mark *m = matching(a, forms[a->o.calls], MARKS_MAX, c);
    if (!m)
        m = matching(a, list_marks, 2, c);
    if (!m && think.text[0])
        m = matching(a, &think, 1, c);
    if (m) {
        keep(a, c);
        if (!m->text[++a->at])
            take_mark(a, m->action);
    } else if (a->held.n && !(a->at == 0 && answer_json_space(c))) {
        release(a, content);
        in_text(a, c, content);
    } else if (a->place != FREE && answer_json_space(c)) {
        keep(a, c);
        a->blank++;
    } else {
        buf_putc(content, c);
        a->place = FREE;
    }
}

/* Between <tool_call> and the function's name. false: no call begins with this. */
static bool in_tag(struct answer *a, char c)
{
    bool goes_on = c == FUNCTION_MARK[a->at];
    if (!goes_on && !(a->at == 0 && answer_json_space(c)))
        return false;
    keep(a, c);
    a->at += goes_on;
    if (!FUNCTION_MARK[a->at])
        enter(a, NAME);
    return true;
}

/* Between the opening mark and the value, or the name in front of it. */
static bool in_head(struct answer *a, char c)
{
    if (c == '{') {
        begin_value(a, c);
        return true;
    }
    if (c == '[' && !a->listed)
        a->listed = true;
    else if (a->o.calls == ANSWER_MISTRAL && !a->listed && !answer_json_space(c))
        enter(a, NAME);
    else if (!answer_json_space(c))
        return false;
    keep(a, c);
    return true;
}

/* f[CALL_ID]c2n9[ARGS]{ of newer models, f{ of older ones */
static struct str mistral_name(struct str head)
{
    const char *rest = memchr(head.p, '[', head.n);
    if (!rest)
        return head;
    size_t n = (size_t)(rest - head.p), tail = sizeof "[ARGS]" - 1;
    bool args = head.n - n >= tail && memcmp(head.p + head.n - tail, "[ARGS]", tail) == 0;
    bool id = head.n - n > tail && strncmp(rest, "[CALL_ID]", sizeof "[CALL_ID]" - 1) == 0;
    return args && (id || head.n - n == tail) ? (struct str){head.p, n} : (struct str){0};
}

static bool in_name(struct answer *a, char c)
{
    bool mistral = a->o.calls == ANSWER_MISTRAL;
    if (c != (mistral ? '{' : '>')) {
        if (c == '\n' || a->held.n - a->body == ANSWER_NAME_MAX)
            return false;
        keep(a, c);
        return true;
    }
    struct str name = mistral ? mistral_name(body(a)) : body(a);
    a->function = answer_call_find(a->o.tools, name);
    if (!a->function)
        return false;
    if (mistral) {
        begin_value(a, c);
        return true;
    }
    keep(a, c);
    enter(a, BODY);
    return true;
}

/* Arguments: a JSON value, or the parameters in a function's body. */
static bool in_arguments(struct answer *a, char c, struct buf *content)
{
    bool json = a->phase == VALUE;
    enum answer_feed r = json ? answer_json_feed(&a->json, c) : answer_parameters_feed(&a->parameters, c);
    if (r == ANSWER_BAD)
        return false;
    keep(a, c);
    if (r == ANSWER_DONE)
        (json ? end_value : end_function)(a, content);
    return true;
}

/* Nothing else is looked for in here: a model thinks about calls, too. */
static void in_reasoning(struct answer *a, char c, struct buf *reasoning)
{
    const char *end = answer_form_think[a->o.reasoning][1];
    if (c != end[a->at]) {
        buf_put(reasoning, a->held.p, a->held.n);
        a->held.n = a->at = 0;
    }
    if (c != end[a->at]) {
        buf_putc(reasoning, c);
        return;
    }
    keep(a, c);
    if (!end[++a->at]) {
        forget(a);
        a->place = REASONED;
    }
}

/* `c` is the byte with which what is held can be no call. The beginning of a mark at its end may be that of another one. */
static void broken(struct answer *a, char c, struct buf *content)
{
    char begun[ANSWER_MARK_MAX];
    size_t n = a->phase == BODY ? a->parameters.at : a->at;
    a->held.n -= n;
    memcpy(begun, a->held.p + a->held.n, n);
    release(a, content);
    for (size_t i = 0; i < n; i++)
        in_text(a, begun[i], content);
    in_text(a, c, content);
}

static void step(struct answer *a, char c, struct buf *content, struct buf *reasoning)
{
    bool possible = true;
    switch ((enum phase)a->phase) {
    case TEXT:
        in_text(a, c, content);
        return;
    case REASONING:
        in_reasoning(a, c, reasoning);
        return;
    case HEAD:
        possible = in_head(a, c);
        break;
    case TAG:
        possible = in_tag(a, c);
        break;
    case NAME:
        possible = in_name(a, c);
        break;
    case VALUE:
    case BODY:
        possible = in_arguments(a, c, content);
    }
    if (!possible)
        broken(a, c, content);
}

static int status(const struct answer *a, const struct buf *content, const struct buf *reasoning)
{
    return a->failed         ? a->failed
           : a->held.failed  ? a->held.failed
           : content->failed ? content->failed
                             : reasoning->failed;
}

int answer_push(struct answer *a, struct str text, struct buf *content, struct buf *reasoning)
{
    if (!a->o.calls && !a->o.reasoning)
        return buf_put(content, text.p, text.n);
    for (size_t i = 0; i < text.n && !a->over && !status(a, content, reasoning); i++)
        step(a, text.p[i], content, reasoning);
    return status(a, content, reasoning);
}

int answer_end(struct answer *a, struct buf *content, struct buf *reasoning)
{
    int st = status(a, content, reasoning);
    if (st)
        return st;
    if (a->phase == REASONING)
        buf_put(reasoning, a->held.p, a->held.n);
    else if (a->phase != TEXT || a->at || !(a->place & FRAMING))
        release(a, content);
    forget(a);
    return status(a, content, reasoning);
}
