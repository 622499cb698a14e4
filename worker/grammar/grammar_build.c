/* A grammar is drawn with edges that consume nothing, because that is how alternatives and optional parts are easily said, and
 * finished without them: each node takes over the edges of all nodes that it reaches for free. Running is then plain: a node's
 * own edges are all that can happen.
 *
 * Three things are settled here so that the run need not ask. A rule that calls itself before consuming anything would
 * make the run go in circles: refused. A rule that cannot end: refused. And `height`, the stack that the cheapest way to a
 * rule's end takes (grammar_height.c): the run never enters what it could not leave again within GRAMMAR_DEPTH_MAX, so however
 * deep a model nests, there is always a way out. */
#include "grammar_build.h"

#include "grammar_height.h"
#include "grammar_own.h"
#include "mem.h"

#include <string.h>

enum { NO_EDGE = UINT32_MAX };
enum edge_kind { EDGE_BYTES, EDGE_SKIP, EDGE_CALL };

struct grammar_draft_node {
    uint32_t first, last; /* edges, in the order of drawing */
    bool final;
};

struct grammar_draft_edge {
    uint32_t next;
    struct grammar_edge e;
    uint8_t kind;
};

/* ---- drawing ------------------------------------------------------------------------------------------------------------ */

static bool grow(void **p, uint32_t *cap, size_t size, uint32_t most)
{
    uint32_t more = *cap ? *cap * 2 : 256;
    size_t bytes;
    more = more < most ? more : most;
    void *bigger = more > *cap && mem_mul(more, size, &bytes) ? mem_realloc(*p, bytes) : NULL;
    if (!bigger)
        return false;
    *p = bigger;
    *cap = more;
    return true;
}

static void fail(struct grammar_draft *d, bool full)
{
    if (d->status == ST_OK)
        d->status = full ? ST_EINVAL : ST_ENOMEM;
}

uint16_t grammar_draft_node(struct grammar_draft *d)
{
    void *nodes = d->nodes;
    if (d->status)
        return 0;
    if (d->n_nodes == d->cap_nodes && !grow(&nodes, &d->cap_nodes, sizeof *d->nodes, GRAMMAR_NODES_MAX)) {
        fail(d, d->cap_nodes == GRAMMAR_NODES_MAX);
        return 0;
    }
    d->nodes = nodes;
    d->nodes[d->n_nodes] = (struct grammar_draft_node){.first = NO_EDGE, .last = NO_EDGE};
    return (uint16_t)d->n_nodes++;
}

void grammar_draft_final(struct grammar_draft *d, uint16_t node)
{
    if (!d->status)
        d->nodes[node].final = true;
}

static void draw(struct grammar_draft *d, uint16_t from, enum edge_kind kind, struct grammar_edge e)
{
    void *edges = d->edges;
    if (d->status)
        return;
    if (d->n_edges == d->cap_edges && !grow(&edges, &d->cap_edges, sizeof *d->edges, GRAMMAR_EDGES_MAX)) {
        fail(d, d->cap_edges == GRAMMAR_EDGES_MAX);
        return;
    }
    d->edges = edges;
    struct grammar_draft_node *n = &d->nodes[from];
    d->edges[d->n_edges] = (struct grammar_draft_edge){.next = NO_EDGE, .e = e, .kind = (uint8_t)kind};
    if (n->last == NO_EDGE)
        n->first = d->n_edges;
    else
        d->edges[n->last].next = d->n_edges;
    n->last = d->n_edges++;
}

void grammar_draft_bytes(struct grammar_draft *d, uint16_t from, uint8_t lo, uint8_t hi, uint16_t to)
{
    draw(d, from, EDGE_BYTES, (struct grammar_edge){.to = to, .lo = lo, .hi = hi});
}

void grammar_draft_skip(struct grammar_draft *d, uint16_t from, uint16_t to)
{
    draw(d, from, EDGE_SKIP, (struct grammar_edge){.to = to});
}

void grammar_draft_call(struct grammar_draft *d, uint16_t from, uint16_t rule, uint16_t to)
{
    draw(d, from, EDGE_CALL, (struct grammar_edge){.to = to, .call = rule});
}

uint16_t grammar_draft_byte(struct grammar_draft *d, uint16_t from, char c)
{
    uint16_t to = grammar_draft_node(d);
    grammar_draft_bytes(d, from, (uint8_t)c, (uint8_t)c, to);
    return to;
}

uint16_t grammar_draft_text(struct grammar_draft *d, uint16_t from, struct str text)
{
    for (size_t i = 0; i < text.n && !d->status; i++)
        from = grammar_draft_byte(d, from, text.p[i]);
    return from;
}

static uint16_t separator(struct grammar_draft *d, uint16_t from, char c)
{
    uint16_t at = grammar_draft_byte(d, from, c), to = grammar_draft_byte(d, at, ' ');
    grammar_draft_skip(d, at, to);
    return to;
}

uint16_t grammar_draft_comma(struct grammar_draft *d, uint16_t from)
{
    return separator(d, from, ',');
}

uint16_t grammar_draft_colon(struct grammar_draft *d, uint16_t from)
{
    return separator(d, from, ':');
}

bool grammar_draft_spend(struct grammar_draft *d, uint32_t steps)
{
    if (!d->status && steps > GRAMMAR_STEPS_MAX - d->n_steps)
        fail(d, true);
    else if (!d->status)
        d->n_steps += steps;
    return !d->status;
}

static const struct grammar_draft_edge *edge_for(struct grammar_draft *d, uint16_t from, uint8_t byte)
{
    for (uint32_t i = d->nodes[from].first; i != NO_EDGE && grammar_draft_spend(d, 1); i = d->edges[i].next)
        if (d->edges[i].kind == EDGE_BYTES && d->edges[i].e.lo <= byte && byte <= d->edges[i].e.hi)
            return &d->edges[i];
    return NULL;
}

bool grammar_draft_has(struct grammar_draft *d, uint16_t from, uint8_t byte)
{
    return !d->status && edge_for(d, from, byte);
}

uint16_t grammar_draft_branch(struct grammar_draft *d, uint16_t root, struct str text)
{
    for (size_t i = 0; i < text.n && !d->status; i++) {
        const struct grammar_draft_edge *e = edge_for(d, root, (uint8_t)text.p[i]);
        root = e ? e->e.to : grammar_draft_byte(d, root, text.p[i]);
    }
    return root;
}

/* ---- finishing ---------------------------------------------------------------------------------------------------------- */

/* What one node comes to reach for free. */
struct reach {
    uint32_t *seen; /* [n_nodes] stamp */
    uint16_t *list; /* [n_nodes] */
    uint32_t n, stamp;
};

static void reach_from(const struct grammar_draft *d, struct reach *r, uint16_t node)
{
    r->stamp++;
    r->n = 0;
    r->list[r->n++] = node;
    r->seen[node] = r->stamp;
    for (uint32_t at = 0; at < r->n; at++)
        for (uint32_t i = d->nodes[r->list[at]].first; i != NO_EDGE; i = d->edges[i].next) {
            uint16_t to = d->edges[i].e.to;
            if (d->edges[i].kind != EDGE_SKIP || r->seen[to] == r->stamp)
                continue;
            r->seen[to] = r->stamp;
            r->list[r->n++] = to;
        }
}

/* Appends the edges of one kind of all that was reached. Returns how many; out may be NULL. */
static uint32_t take(const struct grammar_draft *d, const struct reach *r, enum edge_kind kind,
                     struct grammar_edge *out)
{
    uint32_t n = 0;
    for (uint32_t at = 0; at < r->n; at++)
        for (uint32_t i = d->nodes[r->list[at]].first; i != NO_EDGE; i = d->edges[i].next) {
            if (d->edges[i].kind != kind)
                continue;
            if (out)
                out[n] = d->edges[i].e;
            n++;
        }
    return n;
}

/* Edges in all, once nothing is free any more. */
static uint64_t count_edges(const struct grammar_draft *d, struct reach *r)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < d->n_nodes && n <= GRAMMAR_EDGES_MAX; i++) {
        reach_from(d, r, (uint16_t)i);
        n += take(d, r, EDGE_BYTES, NULL) + take(d, r, EDGE_CALL, NULL);
    }
    return n;
}

static bool copy_net(const struct grammar_draft *d, struct reach *r, struct grammar_node *nodes,
                     struct grammar_edge *edges)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < d->n_nodes; i++) {
        struct grammar_node *v = &nodes[i];
        reach_from(d, r, (uint16_t)i);
        uint32_t n_bytes = take(d, r, EDGE_BYTES, edges + n),
                 n_calls = take(d, r, EDGE_CALL, edges + n + n_bytes);
        if (n_bytes > UINT16_MAX || n_calls > UINT16_MAX)
            return false;
        *v = (struct grammar_node){.first = n, .n_bytes = (uint16_t)n_bytes, .n_calls = (uint16_t)n_calls};
        for (uint32_t k = 0; k < r->n; k++)
            v->final |= d->nodes[r->list[k]].final;
        n += n_bytes + n_calls;
    }
    return true;
}

/* Marks of a depth-first search over starts of rules. */
enum { NEW, OPEN, DONE };

static bool circles(const struct grammar_net *g, uint8_t *mark, uint16_t rule)
{
    const struct grammar_node *v = &g->nodes[rule];
    if (mark[rule] != NEW)
        return mark[rule] == OPEN;
    mark[rule] = OPEN;
    for (uint32_t i = 0; i < v->n_calls; i++)
        if (circles(g, mark, g->edges[v->first + v->n_bytes + i].call))
            return true;
    mark[rule] = DONE;
    return false;
}

static int check(const struct grammar_net *g, struct reach *r, struct err *e)
{
    uint8_t *mark = (uint8_t *)r->seen; /* no longer needed */
    memset(mark, NEW, g->n_nodes);
    if (g->nodes[g->start].height > GRAMMAR_DEPTH_MAX)
        return err_set(e, ST_EINVAL, "no text of at most %d levels can satisfy it", GRAMMAR_DEPTH_MAX);
    for (uint32_t i = 0; i < g->n_edges; i++)
        if (g->edges[i].call && circles(g, mark, g->edges[i].call))
            return err_set(e, ST_EINVAL, "$ref: refers to itself without anything in between");
    return ST_OK;
}

static int finish(struct grammar_draft *d, struct reach *r, uint16_t root, const struct grammar_vocab *vocab,
                  struct grammar **out, struct err *e)
{
    uint64_t n_edges = count_edges(d, r);
    if (n_edges > GRAMMAR_EDGES_MAX)
        return err_set(e, ST_EINVAL, "too large: more than %d transitions", GRAMMAR_EDGES_MAX);
    size_t nodes_bytes = d->n_nodes * sizeof(struct grammar_node);
    struct grammar *g = mem_alloc(sizeof *g + nodes_bytes + n_edges * sizeof(struct grammar_edge));
    if (!g)
        return err_set(e, ST_ENOMEM, "out of memory");
    struct grammar_node *nodes = (struct grammar_node *)(g + 1);
    struct grammar_edge *edges = (struct grammar_edge *)(nodes + d->n_nodes);
    atomic_init(&g->refs, 1);
    g->vocab = vocab;
    g->net = (struct grammar_net){
        .nodes = nodes, .edges = edges, .n_nodes = d->n_nodes, .n_edges = (uint32_t)n_edges, .start = root};
    int st = copy_net(d, r, nodes, edges) ? ST_OK : err_set(e, ST_EINVAL, "too large: too many alternatives");
    if (!st)
        st = grammar_find_heights(nodes, d->n_nodes, edges, (uint32_t)n_edges);
    if (!st)
        st = check(&g->net, r, e);
    if (st)
        grammar_put(g);
    else
        *out = g;
    return st;
}

int grammar_draft_end(struct grammar_draft *d, uint16_t root, const struct grammar_vocab *vocab,
                      struct grammar **out, struct err *e)
{
    struct reach r = {0};
    int st = d->status;
    if (st == ST_EINVAL)
        st = err_set(e, st, "too large: more than %d states, %d transitions or %d steps to find them",
                     GRAMMAR_NODES_MAX, GRAMMAR_EDGES_MAX, GRAMMAR_STEPS_MAX);
    if (!st) {
        r.seen = mem_zalloc(d->n_nodes, sizeof *r.seen);
        r.list = mem_zalloc(d->n_nodes, sizeof *r.list);
        st = r.seen && r.list ? finish(d, &r, root, vocab, out, e) : ST_ENOMEM;
    }
    mem_free(r.seen);
    mem_free(r.list);
    grammar_draft_fini(d);
    return st == ST_ENOMEM ? err_set(e, st, "out of memory") : st;
}

void grammar_draft_fini(struct grammar_draft *d)
{
    mem_free(d->nodes);
    mem_free(d->edges);
    *d = (struct grammar_draft){.status = ST_EINTERNAL};
}
