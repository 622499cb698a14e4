/* What a plan costs, and the batch built from it: without engine, model or device.
 *
 *   bench_scheduler [--plans N]
 *
 * Every row is a steady state: steps are planned, built, launched and committed one after the other; who ends is replaced. Only
 * sched_plan, and behind it building the batch as the engine does, are timed. */
#define _GNU_SOURCE
#include "batch.h"
#include "clock.h"
#include "mem.h"
#include "scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BT = 16, RUN = 256, PROMPT = 64, OUTPUT = 200, TABLE = (PROMPT + OUTPUT) / BT + 1, BUDGET = 2048 };

struct rig {
    struct kv_prefix *kv;
    struct sched *s;
    struct batch *b;
    uint32_t n_slots, run;
    int32_t *tokens;  /* [n_slots][PROMPT + OUTPUT] */
    uint32_t *tables; /* [n_slots][TABLE] */
    struct kv_id *ids;
    int64_t now_ns;
    uint32_t next; /* slot of the next high request */
    int32_t unique;
};

struct scene {
    const char *name;
    uint32_t waiting;
    bool priorities, spread, high; /* spread: of many ranks; high: one arrives for each plan, and one ends */
    uint32_t n_blocks;             /* 0: as many as could be used */
};

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void open_rig(struct rig *r, const struct scene *c)
{
    struct err e = {0};
    uint32_t n = RUN + c->waiting + 16;
    *r = (struct rig){.n_slots = n, .now_ns = 1};
    struct sched_options o = {.n_slots = n,
                              .max_num_seqs = RUN,
                              .max_num_batched_tokens = BUDGET,
                              .priorities = c->priorities,
                              .aging_ns = 30000000000,
                              .priority_clamp = 100};
    r->tokens = mem_zalloc((size_t)n * (PROMPT + OUTPUT), sizeof *r->tokens);
    r->tables = mem_zalloc((size_t)n * TABLE, sizeof *r->tables);
    r->ids = mem_zalloc((size_t)n * TABLE, sizeof *r->ids);
    if (!r->tokens || !r->tables || !r->ids ||
        kv_prefix_create(&r->kv, c->n_blocks ? c->n_blocks : (RUN + 64) * TABLE, 0, &e) != ST_OK ||
        sched_create(&r->s, &o, r->kv, &e) != ST_OK || batch_create(&r->b, BUDGET, RUN, BT, &e) != ST_OK)
        die(e.text[0] ? e.text : "no memory");
}

static void close_rig(struct rig *r)
{
    for (uint32_t i = 0; i < r->n_slots; i++)
        sched_remove(r->s, i, r->now_ns);
    sched_destroy(r->s);
    kv_prefix_destroy(r->kv);
    batch_destroy(r->b);
    mem_free(r->tokens);
    mem_free(r->tables);
    mem_free(r->ids);
}

static void prepare(struct rig *r, uint32_t slot, int32_t priority, uint32_t n_output)
{
    struct sched_seq *q = sched_seq(r->s, slot);
    int32_t *tokens = r->tokens + (size_t)slot * (PROMPT + OUTPUT);
    for (uint32_t i = 0; i < PROMPT + OUTPUT; i++)
        tokens[i] = r->unique;
    r->unique++;
    *q = (struct sched_seq){.n_prompt = PROMPT,
                            .n_tokens = PROMPT,
                            .n_max = PROMPT + n_output,
                            .arrival_ns = r->now_ns,
                            .priority = priority,
                            .latency = 50};
    q->kv = (struct kv_seq){.table = r->tables + (size_t)slot * TABLE,
                            .ids = r->ids + (size_t)slot * TABLE,
                            .tokens = tokens,
                            .block_tokens = BT,
                            .cap_blocks = TABLE};
    kv_id_root(&q->kv.root, "m", 1, "", 0);
    kv_seq_hash(&q->kv, PROMPT);
}

static void submit(struct rig *r, uint32_t slot, int32_t priority)
{
    /* Ends are spread, so that each step sees about as many as any other. */
    prepare(r, slot, priority, OUTPUT / 2 + slot % (OUTPUT / 2));
    sched_submit(r->s, slot, r->now_ns);
}

static int32_t priority_of(const struct scene *c, uint32_t slot)
{
    return c->spread ? (int32_t)(slot % 9) - 4 : 0;
}

static void build(struct rig *r, const struct sched_plan *p)
{
    batch_reset(r->b);
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct sched_row *row = &p->rows[i];
        const struct sched_seq *q = sched_seq(r->s, row->slot);
        batch_add(r->b, q->kv.tokens, q->kv.table, row->start, row->n, row->sample);
    }
}

static void run(struct rig *r, const struct scene *c, const struct sched_plan *p)
{
    static struct sched_row rows[RUN];
    uint32_t n = p->n_rows;
    memcpy(rows, p->rows, n * sizeof *rows);
    for (uint32_t i = 0; i < n; i++)
        sched_launch(r->s, &rows[i]);
    for (uint32_t i = 0; i < n; i++)
        sched_commit(r->s, &rows[i]);
    for (uint32_t i = 0; i < n; i++) {
        if (!rows[i].sample)
            continue;
        const struct sched_seq *q = sched_seq(r->s, rows[i].slot);
        sched_append(r->s, rows[i].slot);
        if (q->n_tokens < q->n_max)
            continue;
        int32_t priority = q->priority;
        sched_remove(r->s, rows[i].slot, r->now_ns);
        if (priority < 10)
            submit(r, rows[i].slot, priority_of(c, rows[i].slot));
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, int64_t *t, uint32_t n)
{
    qsort(t, n, sizeof *t, by_value);
    printf(" %s %7.1f %7.1f", name, (double)t[n / 2] / 1e3, (double)t[n / 100 * 99] / 1e3);
}

/* A high request arrives, the one before it ends: it takes that place before any who wait. */
static void arrive(struct rig *r)
{
    uint32_t slot = r->n_slots - 16 + r->next++ % 2;
    sched_remove(r->s, slot, r->now_ns);
    submit(r, slot, 10);
}

static double measure(const struct scene *c, uint32_t plans)
{
    struct rig r;
    int64_t *t_plan = mem_zalloc(plans, sizeof *t_plan), *t_all = mem_zalloc(plans, sizeof *t_all);
    uint64_t rows = 0, preempted = 0;
    if (!t_plan || !t_all)
        die("no memory");
    open_rig(&r, c);
    for (uint32_t i = 0; i < RUN + c->waiting; i++)
        submit(&r, i, priority_of(c, i));
    for (uint32_t i = 0; i < OUTPUT + plans; i++) {
        r.now_ns += 10000000;
        if (c->high)
            arrive(&r);
        int64_t t0 = clock_now_ns();
        const struct sched_plan *p = sched_plan(r.s, r.now_ns);
        int64_t t1 = clock_now_ns();
        build(&r, p);
        int64_t t2 = clock_now_ns();
        if (i >= OUTPUT) {
            t_plan[i - OUTPUT] = t1 - t0;
            t_all[i - OUTPUT] = t2 - t0;
            rows += p->n_rows;
            preempted += p->n_preempted;
        }
        run(&r, c, p);
    }
    printf("%-44s %6u", c->name, c->waiting);
    print_times("| plan", t_plan, plans);
    print_times("| with batch", t_all, plans);
    printf(" | %5.1f rows, %5.3f preemptions\n", (double)rows / plans, (double)preempted / plans);
    double p50 = (double)t_plan[plans / 2];
    close_rig(&r);
    mem_free(t_plan);
    mem_free(t_all);
    return p50;
}

static void measure_queue(uint32_t n)
{
    struct scene c = {.waiting = n, .priorities = true, .spread = true};
    struct rig r;
    open_rig(&r, &c);
    for (uint32_t i = 0; i < n; i++)
        prepare(&r, i, priority_of(&c, i), OUTPUT);
    int64_t t0 = clock_now_ns();
    for (uint32_t i = 0; i < n; i++)
        sched_submit(r.s, i, r.now_ns);
    int64_t t1 = clock_now_ns();
    for (uint32_t i = 0; i < n; i++)
        sched_remove(r.s, i * 7919 % n, r.now_ns);
    int64_t t2 = clock_now_ns();
    printf("submit, cancel at %6u waiting: %6.0f ns, %6.0f ns; left waiting: %u\n", n, (double)(t1 - t0) / n,
           (double)(t2 - t1) / n, sched_waiting(r.s));
    close_rig(&r);
}

int main(int argc, char **argv)
{
    uint32_t plans = argc == 3 && !strcmp(argv[1], "--plans") ? (uint32_t)atoi(argv[2]) : 2000;
    if (plans < 100 || (argc != 1 && argc != 3)) {
        fprintf(stderr, "usage: %s [--plans N], N from 100\n", argv[0]);
        return 2;
    }
    const struct scene scenes[] = {
        {.name = "256 run, nobody waits", .waiting = 0},
        {.name = "no priorities", .waiting = 1000},
        {.name = "equal priorities", .waiting = 1000, .priorities = true},
        {.name = "nine priorities", .waiting = 1000, .priorities = true, .spread = true},
        {.name = "a high request at each plan", .waiting = 1000, .priorities = true, .high = true},
        {.name = "equal, blocks are scarce",
         .waiting = 1000,
         .priorities = true,
         .n_blocks = 200 * TABLE / 2},
        {.name = "nine priorities", .waiting = 10000, .priorities = true, .spread = true},
        {.name = "nine priorities", .waiting = 100000, .priorities = true, .spread = true},
    };
    double p50[sizeof scenes / sizeof *scenes];
    printf("us: p50, p99\n");
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        p50[i] = measure(&scenes[i], plans);
    printf("plan at 10^4 and 10^5 waiting over 10^3: %.2f, %.2f (log: 1.33, 1.67)\n", p50[6] / p50[3],
           p50[7] / p50[3]);
    for (uint32_t n = 1000; n <= 100000; n *= 10)
        measure_queue(n);
    return 0;
}
