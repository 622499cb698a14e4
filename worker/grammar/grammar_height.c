/* A node's height is the least over its edges: behind bytes that of the next node; behind a call the greater one of the next
 * node's and of the rule's and one. So heights follow from smaller or equal ones, and are found in order: all nodes of height 0,
 * then all of 1, and so on. When a node's height is settled, the edges that lead to it or call it are looked at once, which makes
 * two looks for each edge in all. Passing over all nodes until nothing changes is shorter, but takes as many passes as a schema
 * has objects in a row. */
#include "grammar_height.h"

#include "mem.h"
#include "status.h"

#include <string.h>

enum { NO_USE = UINT32_MAX };

struct heights {
    struct grammar_node *nodes;
    const struct grammar_edge *edges;
    uint32_t *used; /* [n_nodes] first use: 2 * edge where an edge leads to the node, + 1 where it calls it */
    uint32_t *next_use; /* [2 * n_edges] */
    uint16_t *from;     /* [n_edges] the node that has the edge */
    uint16_t *now;      /* [2 * n_nodes] of the height at hand, not settled; or settled meanwhile */
    uint16_t *later;    /* [2 * n_nodes] of the next one: each node is in both once at most */
    bool *settled;      /* [n_nodes] */
    uint32_t n_now, n_later;
};

static void use(struct heights *h, uint16_t node, uint32_t use)
{
    h->next_use[use] = h->used[node];
    h->used[node] = use;
}

static bool calls(const struct heights *h, uint32_t edge)
{
    const struct grammar_node *v = &h->nodes[h->from[edge]];
    return edge >= v->first + v->n_bytes;
}

static void list_uses(struct heights *h, uint32_t n_nodes)
{
    for (uint32_t i = 0; i < n_nodes; i++) {
        const struct grammar_node *v = &h->nodes[i];
        for (uint32_t e = v->first; e < v->first + v->n_bytes + v->n_calls; e++) {
            h->from[e] = (uint16_t)i;
            use(h, h->edges[e].to, 2 * e);
            if (e >= v->first + v->n_bytes)
                use(h, h->edges[e].call, 2 * e + 1);
        }
    }
}

/* The height that an edge offers to the node that has it; NONE as long as what it takes is not settled. */
static uint8_t offer(const struct heights *h, uint32_t edge)
{
    const struct grammar_edge *e = &h->edges[edge];
    uint8_t behind = h->nodes[e->to].height, in = h->nodes[e->call].height;
    if (!calls(h, edge))
        return behind;
    if (!h->settled[e->to] || !h->settled[e->call] || in >= GRAMMAR_DEPTH_MAX)
        return GRAMMAR_HEIGHT_NONE;
    return in + 1 > behind ? in + 1 : behind;
}

static void settle(struct heights *h, uint16_t node)
{
    uint8_t height = h->nodes[node].height;
    h->settled[node] = true;
    for (uint32_t u = h->used[node]; u != NO_USE; u = h->next_use[u]) {
        uint16_t from = h->from[u / 2];
        uint8_t offered = offer(h, u / 2);
        if (offered >= h->nodes[from].height)
            continue;
        h->nodes[from].height = offered;
        if (offered == height)
            h->now[h->n_now++] = from;
        else
            h->later[h->n_later++] = from;
    }
}

static void settle_all(struct heights *h, uint32_t n_nodes)
{
    for (uint32_t i = 0; i < n_nodes; i++) {
        h->nodes[i].height = h->nodes[i].final ? 0 : GRAMMAR_HEIGHT_NONE;
        if (h->nodes[i].final)
            h->now[h->n_now++] = (uint16_t)i;
    }
    while (h->n_now) {
        while (h->n_now) {
            uint16_t node = h->now[--h->n_now];
            if (!h->settled[node])
                settle(h, node);
        }
        uint16_t *empty = h->now;
        h->now = h->later;
        h->n_now = h->n_later;
        h->later = empty;
        h->n_later = 0;
    }
}

int grammar_find_heights(struct grammar_node *nodes, uint32_t n_nodes, const struct grammar_edge *edges,
                         uint32_t n_edges)
{
    struct heights h = {.nodes = nodes,
                        .edges = edges,
                        .used = mem_zalloc(n_nodes, sizeof *h.used),
                        .next_use = mem_zalloc(2 * (size_t)n_edges, sizeof *h.next_use),
                        .from = mem_zalloc(n_edges, sizeof *h.from),
                        .now = mem_zalloc(2 * (size_t)n_nodes, sizeof *h.now),
                        .later = mem_zalloc(2 * (size_t)n_nodes, sizeof *h.later),
                        .settled = mem_zalloc(n_nodes, sizeof *h.settled)};
    bool fits = h.used && h.next_use && h.from && h.now && h.later && h.settled;
    if (fits) {
        memset(h.used, 0xFF, n_nodes * sizeof *h.used);
        list_uses(&h, n_nodes);
        settle_all(&h, n_nodes);
    }
    mem_free(h.used);
    mem_free(h.next_use);
    mem_free(h.from);
    mem_free(h.now);
    mem_free(h.later);
    mem_free(h.settled);
    return fits ? ST_OK : ST_ENOMEM;
}
