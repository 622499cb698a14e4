/* Sequences that have a long prefix in the same blocks, through the whole backend: in steps that share it, launch by launch and
 * by graphs, every row has the bits of a step of its own. */
#define NET_POSITIONS 1100
#include "backend_net.h"

#include "cu_backend.h"
#include "cu_be.h"
#include "simt_c.h"

enum { PREFIX = 1040, GROUPS = 3, LONG = 9, SEQS = 15, CHUNK = 150 };

static const struct shape shape = {2, 64, 4, 2, 16, 96, 80, 16, BE_BF16, BE_BF16, false, true};

/* Three groups of three sequences with a prefix in common; the others are short and alone. */
struct world {
    struct net n;
    uint32_t at[SEQS];
    float *together, *alone; /* [NET_SEQS][NET_LEN][vocab] */
};

static const struct cu_be *cuda_of(const struct world *w)
{
    return (const struct cu_be *)w->n.be;
}

static void begin(struct feed *f)
{
    feed_begin(f);
    for (uint32_t q = 0; q < LONG; q++)
        memcpy(f->tables[q], f->tables[q / GROUPS * GROUPS], PREFIX / NET_BLOCK * sizeof f->tables[q][0]);
}

static void open_world(struct world *w, const struct source *m, bool no_graphs, enum be_type kv, uint32_t window)
{
    struct be_options o = {.device = "cuda", .deterministic = true, .no_graphs = no_graphs};
    struct err e = {0};
    struct be *be = NULL;
    struct feed *f = malloc(sizeof *f);
    const size_t logits = (size_t)NET_SEQS * NET_LEN * shape.vocab;
    sim_library(false);
    if (cuda_backend_create(&be, &o, &e) || net_init(&w->n, m, be, kv, CHUNK, &e))
        fail_msg("%s", e.text);
    w->n.window = window;
    w->together = calloc(logits, sizeof *w->together);
    w->alone = calloc(logits, sizeof *w->alone);
    for (uint32_t q = 0; q < SEQS; q++)
        w->at[q] = q < LONG ? PREFIX : 0;
    for (uint32_t q = 0; q < LONG; q += GROUPS)
        for (uint32_t from = 0, to; from < PREFIX; from = to) {
            to = from + CHUNK < PREFIX ? from + CHUNK : PREFIX;
            begin(f);
            feed_add(f, q, from, to, shape.vocab);
            feed_run(&w->n, f, &q, w->alone);
        }
    free(f);
}

static void close_world(struct world *w)
{
    net_fini(&w->n);
    free(w->together);
    free(w->alone);
    assert_int_equal(sim_live(), 0);
}

/* One step of the sequences in `mask`, `rows` of the last and one of each other; then each of them again by itself. */
static void step(struct world *w, uint32_t mask, uint32_t rows, uint32_t items)
{
    struct feed *f = malloc(sizeof *f);
    uint32_t seqs[SEQS], n = 0, last = 0;
    begin(f);
    for (uint32_t q = 0; q < SEQS; q++)
        if (mask >> q & 1)
            seqs[n++] = last = q;
    for (uint32_t i = 0; i < n; i++)
        feed_add(f, seqs[i], w->at[seqs[i]], w->at[seqs[i]] + (seqs[i] == last ? rows : 1), shape.vocab);
    feed_run(&w->n, f, seqs, w->together);
    assert_int_equal(cuda_of(w)->plan.n_items[1], items);
    assert_true(cuda_of(w)->plan.n_members > 0);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t q = seqs[i], take = q == last ? rows : 1;
        const size_t from = ((size_t)q * NET_LEN + w->at[q]) * shape.vocab;
        begin(f);
        feed_add(f, q, w->at[q], w->at[q] + take, shape.vocab);
        feed_run(&w->n, f, &q, w->alone);
        assert_int_equal(cuda_of(w)->plan.n_members, 0);
        assert_memory_equal(w->together + from, w->alone + from, take * shape.vocab * sizeof(float));
        w->at[q] += take;
    }
    free(f);
}

static uint32_t graphs_of_shared_steps(const struct world *w, uint32_t *grid)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < CU_GRAPHS; i++)
        if (cuda_of(w)->graph[1][i].graph) {
            *grid = cuda_of(w)->graph[1][i].grid;
            n++;
        }
    return n;
}

/* Nine rows: one group and six short sequences, or three groups, in graphs of the same bucket. The emulated GPU has four SMs. */
static void shared_steps_have_the_bits_of_lone_ones(void **state)
{
    (void)state;
    const uint32_t one_group = 0x7e07, all_groups = 0x01ff;
    struct source m;
    source_init(&m, &shape);
    for (int i = 0; i < 2; i++) {
        struct world w;
        uint32_t grid = 0;
        open_world(&w, &m, i > 0, i ? BE_E4M3 : BE_BF16, i ? 700 : 0);
        for (int j = 0; j < 3; j++)
            step(&w, one_group, 1, 2);
        assert_int_equal(graphs_of_shared_steps(&w, &grid), i == 0);
        assert_int_equal(grid, i ? 0 : 4);
        step(&w, all_groups, 1, 6); /* more items than the graph has blocks */
        step(&w, all_groups, 1, 6);
        assert_int_equal(graphs_of_shared_steps(&w, &grid), i == 0);
        assert_int_equal(grid, i ? 0 : 8);
        step(&w, one_group, 1, 2);
        step(&w, all_groups | 1u << LONG, 40, 6 + 2); /* and a prompt's chunk */
        close_world(&w);
    }
    source_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared_steps_have_the_bits_of_lone_ones)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
