/* The book of open requests over an engine that says what the test wants it to: who is told, who is seen, what is counted. The
 * engine here is these few functions; the test links no other. */
#include "clock.h"
#include "ledger.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SLOTS = 6, EVENTS = 64, NORMAL = 1, HIGH = 3 };
static const int64_t MS = NS_PER_MS;

struct engine {
    bool used[SLOTS], cancelled[SLOTS];
    uint32_t gen[SLOTS];
    struct engine_event events[EVENTS];
    uint32_t n_events, at;
};

uint32_t engine_slots(const struct engine *g)
{
    (void)g;
    return SLOTS;
}

int engine_submit(struct engine *g, const struct engine_request *r, uint32_t *slot, uint32_t *gen,
                  struct err *e)
{
    (void)r;
    for (uint32_t i = 0; i < SLOTS; i++)
        if (!g->used[i]) {
            g->used[i] = true;
            g->cancelled[i] = false;
            *slot = i;
            *gen = g->gen[i];
            return ST_OK;
        }
    return err_set(e, ST_EBUSY, "full");
}

void engine_cancel(struct engine *g, uint32_t slot, uint32_t gen)
{
    assert_true(g->used[slot] && g->gen[slot] == gen);
    g->cancelled[slot] = true;
}

void engine_release(struct engine *g, uint32_t slot, uint32_t gen)
{
    assert_true(g->used[slot] && g->gen[slot] == gen);
    g->used[slot] = false;
    g->gen[slot]++;
}

bool engine_pop_event(struct engine *g, struct engine_event *out)
{
    if (g->at == g->n_events) {
        g->at = g->n_events = 0;
        return false;
    }
    *out = g->events[g->at++];
    return true;
}

uint32_t engine_class(const struct engine *g, int32_t priority, int32_t strict)
{
    (void)g;
    return strict || priority >= 10 ? HIGH : NORMAL;
}

const char *engine_class_name(uint32_t cls)
{
    static const char *const names[] = {"background", "normal", "elevated", "high"};
    return names[cls];
}

static void say(struct engine *g, uint32_t slot, uint32_t gen, int type, int finish, int64_t t_ns)
{
    assert_true(g->n_events < EVENTS);
    g->events[g->n_events++] = (struct engine_event){.slot = slot,
                                                     .gen = gen,
                                                     .type = (uint8_t)type,
                                                     .finish = (uint8_t)finish,
                                                     .cls = NORMAL,
                                                     .n_prompt = 3,
                                                     .n_output = 5,
                                                     .scheduled_ns = 1,
                                                     .t_ns = t_ns};
}

/* ---- a client ---------------------------------------------------------------------------------------------------- */

struct client {
    struct ledger *l;
    uint32_t tokens, ends, tag, slot, gen;
    bool again; /* asks again in its END */
};

static void on_event(void *ctx, uint32_t tag, const struct engine_event *ev)
{
    struct client *c = ctx;
    assert_int_equal(tag, c->tag);
    c->tokens += ev->type == ENGINE_TOKEN;
    c->ends += ev->type == ENGINE_END;
    if (ev->type == ENGINE_END && c->again) {
        const struct ledger_owner owner = {on_event, c, c->tag};
        c->again = false;
        assert_int_equal(ledger_submit(c->l, &(struct engine_request){0}, &(struct ledger_name){0}, &owner,
                                       &c->slot, &c->gen, NULL),
                         ST_OK);
    }
}

static int ask_as(struct client *c, const struct ledger_name *name, const struct engine_request *r)
{
    const struct ledger_owner owner = {on_event, c, c->tag};
    return ledger_submit(c->l, r, name, &owner, &c->slot, &c->gen, NULL);
}

static void ask(struct client *c)
{
    const struct engine_request r = {
        .prompt = (const int32_t[]){1, 2, 3}, .n_prompt = 3, .arrival_ns = 1000 * MS};
    assert_int_equal(ask_as(c, &(struct ledger_name){.id = "x"}, &r), ST_OK);
}

static struct engine G;
static struct ledger *L;

static int up(void **state)
{
    (void)state;
    G = (struct engine){0};
    return ledger_create(&L, &G, &(struct timing_slo){0});
}

static int down(void **state)
{
    (void)state;
    ledger_destroy(L);
    return mem_live() != 0;
}

static uint64_t observed(enum metrics_histogram h)
{
    uint64_t n = 0;
    for (int i = 0; i <= METRICS_BUCKETS_MAX; i++)
        n += ledger_metrics(L)->histograms[h][NORMAL].count[i];
    return n;
}

static uint64_t finished(enum metrics_finish f)
{
    return ledger_metrics(L)->finished[NORMAL][f];
}

/* ---- the rules --------------------------------------------------------------------------------------------------- */

static void each_owner_is_told_of_his_own(void **state)
{
    (void)state;
    struct client a = {.l = L, .tag = 7}, b = {.l = L, .tag = 8};
    ask(&a);
    ask(&b);
    say(&G, a.slot, a.gen, ENGINE_TOKEN, 0, 1010 * MS);
    say(&G, b.slot, b.gen, ENGINE_TOKEN, 0, 1010 * MS);
    say(&G, b.slot, b.gen, ENGINE_TOKEN, 0, 1020 * MS);
    say(&G, a.slot, a.gen, ENGINE_END, ENGINE_FINISH_STOP, 1030 * MS);
    assert_false(ledger_poll(L));
    assert_true(a.tokens == 1 && a.ends == 1 && b.tokens == 2 && b.ends == 0);
    assert_int_equal(ledger_open(L), 1);
}

static void an_event_of_an_earlier_request_finds_nobody(void **state)
{
    (void)state;
    struct client a = {.l = L}, b = {.l = L};
    ask(&a);
    say(&G, a.slot, a.gen, ENGINE_END, ENGINE_FINISH_STOP, 1030 * MS);
    ledger_poll(L);
    ask(&b);
    assert_int_equal(a.slot, b.slot);
    say(&G, a.slot, a.gen, ENGINE_TOKEN, 0, 1040 * MS);
    ledger_poll(L);
    assert_true(a.tokens == 0 && b.tokens == 0);
    ledger_finish(L, a.slot, a.gen); /* stale: the engine would refuse it here */
    ledger_cancel(L, a.slot, a.gen);
    ledger_drop(L, a.slot, a.gen);
    assert_false(G.cancelled[b.slot]);
    ledger_cancel(L, SLOTS, 0);
    assert_int_equal(ledger_open(L), 1);
}

static void an_owner_may_ask_again_when_it_hears_of_the_end(void **state)
{
    (void)state;
    struct client all[SLOTS];
    for (int i = 0; i < SLOTS; i++) {
        all[i] = (struct client){.l = L, .again = true};
        ask(&all[i]);
    }
    for (int i = 0; i < SLOTS; i++)
        say(&G, all[i].slot, all[i].gen, ENGINE_END, ENGINE_FINISH_LENGTH, 1030 * MS);
    ledger_poll(L); /* every slot is taken: it must be free by the time the owner is told */
    for (int i = 0; i < SLOTS; i++)
        assert_true(all[i].ends == 1 && all[i].gen == 1);
    assert_int_equal(ledger_open(L), SLOTS);
}

static void what_the_engine_refuses_is_not_in_the_book(void **state)
{
    (void)state;
    struct client all[SLOTS + 1];
    for (int i = 0; i < SLOTS; i++) {
        all[i] = (struct client){.l = L};
        ask(&all[i]);
    }
    all[SLOTS] = (struct client){.l = L};
    assert_int_equal(ask_as(&all[SLOTS], &(struct ledger_name){0}, &(struct engine_request){0}), ST_EBUSY);
    assert_int_equal(ledger_open(L), SLOTS);
}

/* How a request ends, and what is counted of it. */
static void end_one(void (*how)(struct ledger *l, uint32_t slot, uint32_t gen), enum engine_finish finish)
{
    struct client c = {.l = L};
    ask(&c);
    say(&G, c.slot, c.gen, ENGINE_TOKEN, 0, 1010 * MS);
    ledger_poll(L);
    if (how) {
        how(L, c.slot, c.gen);
        assert_true(G.cancelled[c.slot]);
    }
    say(&G, c.slot, c.gen, ENGINE_END, finish, 1030 * MS);
    ledger_poll(L);
    assert_int_equal(c.ends, how != ledger_drop);
    assert_int_equal(ledger_open(L), 0);
}

static void each_end_counts_under_its_reason(void **state)
{
    (void)state;
    const struct {
        void (*how)(struct ledger *l, uint32_t slot, uint32_t gen);
        enum engine_finish finish;
        enum metrics_finish counts;
        bool good, timed;
    } cases[] = {
        {NULL, ENGINE_FINISH_STOP, METRICS_STOP, true, true},
        {NULL, ENGINE_FINISH_LENGTH, METRICS_LENGTH, true, true},
        {NULL, ENGINE_FINISH_CANCEL, METRICS_ABORT, false, true}, /* the engine shut down */
        {NULL, ENGINE_FINISH_ERROR, METRICS_ERROR, false, true},
        {ledger_finish, ENGINE_FINISH_CANCEL, METRICS_STOP, true, true},
        {ledger_finish, ENGINE_FINISH_LENGTH, METRICS_STOP, true, true}, /* it was faster than the cancel */
        {ledger_cancel, ENGINE_FINISH_CANCEL, METRICS_ABORT, false, true},
        {ledger_cancel, ENGINE_FINISH_STOP, METRICS_STOP, false, true}, /* nobody had it */
        {ledger_drop, ENGINE_FINISH_CANCEL, METRICS_ABORT, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        *ledger_metrics(L) = (struct metrics){0};
        end_one(cases[i].how, cases[i].finish);
        for (int f = 0; f < METRICS_FINISHES; f++)
            assert_int_equal(finished((enum metrics_finish)f), f == (int)cases[i].counts);
        assert_int_equal(ledger_metrics(L)->good[NORMAL], cases[i].good);
        assert_int_equal(observed(METRICS_E2E), cases[i].timed);
        assert_int_equal(observed(METRICS_QUEUE), cases[i].timed);
        assert_int_equal(observed(METRICS_TTFT), 1);
    }
}

static void what_was_finished_and_then_dropped_was_not_delivered(void **state)
{
    (void)state;
    struct client c = {.l = L};
    ask(&c);
    ledger_finish(L, c.slot, c.gen);
    ledger_drop(L, c.slot, c.gen);
    ledger_drop(L, c.slot, c.gen); /* twice is once */
    say(&G, c.slot, c.gen, ENGINE_TOKEN, 0, 1010 * MS);
    say(&G, c.slot, c.gen, ENGINE_END, ENGINE_FINISH_CANCEL, 1030 * MS);
    ledger_poll(L);
    assert_true(c.tokens == 0 && c.ends == 0 && finished(METRICS_ABORT) == 1 && observed(METRICS_TTFT) == 0);
}

static void both_doors_count_alike(void **state)
{
    (void)state;
    struct metrics seen[2];
    for (int door = LEDGER_HTTP; door <= LEDGER_DYNAMO; door++) {
        *ledger_metrics(L) = (struct metrics){0};
        struct client c = {.l = L};
        const struct engine_request r = {.arrival_ns = 1000 * MS};
        assert_int_equal(ask_as(&c, &(struct ledger_name){.door = (enum ledger_door)door, .id = "x"}, &r),
                         ST_OK);
        for (int i = 1; i < 9; i++)
            say(&G, c.slot, c.gen, ENGINE_TOKEN, 0, (1000 + 7 * i) * MS);
        say(&G, c.slot, c.gen, ENGINE_END, ENGINE_FINISH_LENGTH, 1100 * MS);
        ledger_poll(L);
        seen[door] = *ledger_metrics(L);
    }
    assert_memory_equal(&seen[LEDGER_HTTP], &seen[LEDGER_DYNAMO], sizeof *seen);
    assert_true(observed(METRICS_TTFT) == 1 && observed(METRICS_ITL) == 7);
}

static void one(void *ctx, const struct ledger_request *r)
{
    (*(uint32_t *)ctx)++;
    assert_true(r->name->door == LEDGER_DYNAMO && r->name->choice == 2 && r->n_prompt == 3);
    assert_string_equal(r->name->id, "call");
    assert_true(str_eq(r->name->prefix_id, STR_LIT("p")) && str_eq(r->name->session_id, STR_LIT("s")));
    assert_true(r->priority == 11 && r->strict_priority == 1 && r->expected_output_tokens == 40 &&
                r->iat_ms == 250);
    assert_true(r->latency_sensitivity == 0.25f && r->timing->cls == HIGH && r->timing->arrival_ns == 5);
}

static void an_observer_sees_the_name_and_the_hints(void **state)
{
    (void)state;
    struct client c = {.l = L};
    uint32_t n = 0;
    const struct ledger_name name = {LEDGER_DYNAMO, "call", 2, STR_LIT("p"), STR_LIT("s")};
    const struct engine_request r = {.n_prompt = 3,
                                     .priority = 11,
                                     .strict_priority = 1,
                                     .expected_output_tokens = 40,
                                     .iat_ms = 250,
                                     .latency_sensitivity = 0.25f,
                                     .arrival_ns = 5};
    assert_int_equal(ask_as(&c, &name, &r), ST_OK);
    ledger_visit(L, one, &n);
    assert_int_equal(n, 1);
}

/* ---- against a twin ---------------------------------------------------------------------------------------------- */

enum { LIVES = 4096 };

struct twin {
    struct client clients[LIVES];
    uint32_t n, open[SLOTS], n_open;    /* numbers of clients, as submitted */
    uint32_t dropped[SLOTS], n_dropped; /* slots */
    uint64_t finished[METRICS_FINISHES];
};

static void compare_open(void *ctx, const struct ledger_request *r)
{
    uint32_t **at = ctx;
    assert_int_equal(r->name->choice, *(*at)++);
}

static void compare_all(struct twin *t)
{
    uint32_t *at = t->open;
    ledger_visit(L, compare_open, &at);
    assert_int_equal(at - t->open, t->n_open);
    assert_int_equal(ledger_open(L), t->n_open + t->n_dropped);
    for (int f = 0; f < METRICS_FINISHES; f++)
        assert_int_equal(finished((enum metrics_finish)f), t->finished[f]);
}

static void remove_at(struct twin *t, uint32_t i)
{
    memmove(&t->open[i], &t->open[i + 1], (--t->n_open - i) * sizeof *t->open);
}

static void begin(struct twin *t)
{
    struct client *c = &t->clients[t->n];
    const struct ledger_name name = {.id = "", .choice = t->n};
    if (t->n_open + t->n_dropped == SLOTS)
        return;
    *c = (struct client){.l = L, .tag = t->n};
    assert_int_equal(ask_as(c, &name, &(struct engine_request){0}), ST_OK);
    t->open[t->n_open++] = t->n++;
}

static void end(struct twin *t, uint32_t i)
{
    static const struct {
        void (*how)(struct ledger *l, uint32_t slot, uint32_t gen);
        enum engine_finish finish;
        enum metrics_finish counts;
    } ways[] = {{NULL, ENGINE_FINISH_STOP, METRICS_STOP},
                {NULL, ENGINE_FINISH_LENGTH, METRICS_LENGTH},
                {NULL, ENGINE_FINISH_ERROR, METRICS_ERROR},
                {ledger_finish, ENGINE_FINISH_CANCEL, METRICS_STOP},
                {ledger_cancel, ENGINE_FINISH_CANCEL, METRICS_ABORT}};
    struct client *c = &t->clients[t->open[i]];
    int way = rand() % 5;
    if (ways[way].how)
        ways[way].how(L, c->slot, c->gen);
    say(&G, c->slot, c->gen, ENGINE_END, ways[way].finish, 1);
    ledger_poll(L);
    assert_int_equal(c->ends, 1);
    t->finished[ways[way].counts]++;
    remove_at(t, i);
}

static void drop(struct twin *t, uint32_t i)
{
    struct client *c = &t->clients[t->open[i]];
    ledger_drop(L, c->slot, c->gen);
    t->dropped[t->n_dropped++] = c->slot;
    remove_at(t, i);
}

static void end_dropped(struct twin *t)
{
    uint32_t slot = t->dropped[--t->n_dropped];
    say(&G, slot, G.gen[slot], ENGINE_TOKEN, 0, 1);
    say(&G, slot, G.gen[slot], ENGINE_END, ENGINE_FINISH_CANCEL, 1);
    ledger_poll(L);
    t->finished[METRICS_ABORT]++;
}

static void token(struct client *c)
{
    uint32_t before = c->tokens;
    say(&G, c->slot, c->gen, ENGINE_TOKEN, 0, 1);
    say(&G, c->slot, c->gen - 1, ENGINE_TOKEN, 0, 1);
    ledger_poll(L);
    assert_int_equal(c->tokens, before + 1);
}

static void random_lives_agree_with_a_twin(void **state)
{
    (void)state;
    static struct twin t;
    unsigned seed = 20261122;
    printf("seed %u\n", seed);
    srand(seed);
    while (t.n < LIVES) {
        uint32_t i = t.n_open ? (uint32_t)rand() % t.n_open : 0;
        int what = rand() % 6;
        if (what < 2)
            begin(&t);
        else if (what == 2 && t.n_open)
            end(&t, i);
        else if (what == 3 && t.n_open)
            drop(&t, i);
        else if (what == 4 && t.n_dropped)
            end_dropped(&t);
        else if (what == 5 && t.n_open)
            token(&t.clients[t.open[i]]);
        compare_all(&t);
    }
}

static void without_memory_there_is_no_book(void **state)
{
    (void)state;
    struct ledger *l = NULL;
    mem_fail_after(1);
    assert_int_equal(ledger_create(&l, &G, &(struct timing_slo){0}), ST_ENOMEM);
    mem_fail_after(0);
    assert_null(l);
    ledger_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_owner_is_told_of_his_own, up, down),
        cmocka_unit_test_setup_teardown(an_event_of_an_earlier_request_finds_nobody, up, down),
        cmocka_unit_test_setup_teardown(an_owner_may_ask_again_when_it_hears_of_the_end, up, down),
        cmocka_unit_test_setup_teardown(what_the_engine_refuses_is_not_in_the_book, up, down),
        cmocka_unit_test_setup_teardown(each_end_counts_under_its_reason, up, down),
        cmocka_unit_test_setup_teardown(what_was_finished_and_then_dropped_was_not_delivered, up, down),
        cmocka_unit_test_setup_teardown(both_doors_count_alike, up, down),
        cmocka_unit_test_setup_teardown(an_observer_sees_the_name_and_the_hints, up, down),
        cmocka_unit_test_setup_teardown(random_lives_agree_with_a_twin, up, down),
        cmocka_unit_test_setup_teardown(without_memory_there_is_no_book, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
