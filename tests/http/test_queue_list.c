/* The queue view over made-up requests: states, bounds, odd ids, no memory. The ledger and the engine here are these few
 * functions; the test links no others. */
#include "clock.h"
#include "http_queue.h"
#include "json.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ENDED = 0 };
static uint32_t n_open;
static bool with_prefixes = true, with_sessions;
static const char *const ids[] = {"b", "a", "", "b\"\xff\n", "ab"};
enum { IDS = sizeof ids / sizeof *ids };

void ledger_visit(const struct ledger *l, void (*see)(void *ctx, const struct ledger_request *r), void *ctx)
{
    (void)l;
    for (uint32_t i = 0; i < n_open; i++) {
        const struct ledger_name name = {.door = i % 2 ? LEDGER_DYNAMO : LEDGER_HTTP,
                                         .id = "cmpl-1",
                                         .choice = i,
                                         .prefix_id = with_prefixes ? str_from(ids[i % IDS]) : (struct str){0},
                                         .session_id = with_sessions ? str_from(ids[i % IDS]) : (struct str){0}};
        const struct timing t = {
            .cls = (uint8_t)(i % ENGINE_CLASSES), .arrival_ns = NS_PER_S, .first_ns = i % 2 ? 0 : 3 * (int64_t)NS_PER_S};
        see(ctx, &(struct ledger_request){
                     .name = &name, .timing = &t, .slot = i, .gen = 7, .n_prompt = i + 1, .latency_sensitivity = 1});
    }
}

struct engine *ledger_engine(const struct ledger *l)
{
    (void)l;
    return NULL;
}

/* Slot i is in state i % 6; one in six has ended. */
bool engine_slot_view(const struct engine *g, uint32_t slot, uint32_t gen, struct engine_slot_view *out)
{
    (void)g;
    assert_int_equal(gen, 7);
    if (slot % 6 == ENDED)
        return false;
    *out = (struct engine_slot_view){.state = (enum engine_slot_state)(slot % 6), .n_blocks = slot};
    return true;
}

static cJSON *view(uint32_t n)
{
    struct buf b = {0};
    cJSON *j = NULL;
    n_open = n;
    http_queue_put(NULL, 11 * (int64_t)NS_PER_S, &b);
    assert_int_equal(b.failed, ST_OK);
    assert_int_equal(json_parse(&j, buf_str(&b), NULL), ST_OK);
    buf_fini(&b);
    return j;
}

static double counted(const cJSON *j)
{
    double n = 0;
    for (const cJSON *c = json_get(j, "classes")->child; c; c = c->next)
        for (const cJSON *s = c->child; s; s = s->next)
            n += s->valuedouble;
    return n;
}

static void every_state_has_its_name(void **state)
{
    (void)state;
    static const char *const names[] = {"queued", "loading", "prefill", "decode", "preempted"};
    cJSON *j = view(6);
    const cJSON *list = json_get(j, "requests");
    assert_int_equal(cJSON_GetArraySize(list), 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(json_get(cJSON_GetArrayItem(list, i), "state")->valuestring, names[i]);
    assert_true(counted(j) == 5);
    const cJSON *background = json_get(json_get(j, "classes"), "background");
    assert_true(json_get(background, "decode")->valuedouble == 1 && json_get(background, "queued")->valuedouble == 0);
    json_free(j);
}

static void waiting_ends_with_the_first_token(void **state)
{
    (void)state;
    cJSON *j = view(3);
    const cJSON *list = json_get(j, "requests");
    assert_true(json_get(cJSON_GetArrayItem(list, 0), "waited_ms")->valuedouble == 10000);
    assert_true(json_get(cJSON_GetArrayItem(list, 1), "waited_ms")->valuedouble == 2000);
    json_free(j);
}

static void the_list_is_bounded_and_the_counts_are_not(void **state)
{
    (void)state;
    cJSON *j = view(1200); /* a sixth has ended */
    assert_int_equal(cJSON_GetArraySize(json_get(j, "requests")), HTTP_QUEUE_MAX);
    assert_true(cJSON_IsFalse(json_get(j, "truncated")));
    json_free(j);
    j = view(1202);
    assert_int_equal(cJSON_GetArraySize(json_get(j, "requests")), HTTP_QUEUE_MAX);
    assert_true(cJSON_IsTrue(json_get(j, "truncated")) && counted(j) == 1001);
    json_free(j);
}

static void is_grouped(const cJSON *groups, int first, const char *by)
{
    static const char *const sorted[] = {"a", "ab", "b", "b\"\xef\xbf\xbd\n"};
    for (int i = 0; i < 4; i++) {
        const cJSON *g = cJSON_GetArrayItem(groups, first + i);
        assert_int_equal(cJSON_GetArraySize(g), 2);
        assert_string_equal(json_get(g, by)->valuestring, sorted[i]);
        assert_true(json_get(g, "requests")->valuedouble == 5);
    }
}

static void groups_are_of_equal_ids_and_no_id_is_no_group(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        with_prefixes = which & 1;
        with_sessions = which & 2;
        cJSON *j = view(30);
        const cJSON *groups = json_get(j, "groups");
        assert_int_equal(cJSON_GetArraySize(groups), 4 * with_prefixes + 4 * with_sessions);
        if (with_prefixes)
            is_grouped(groups, 0, "prefix_id");
        if (with_sessions)
            is_grouped(groups, 4 * with_prefixes, "session_id");
        json_free(j);
    }
    with_prefixes = true;
    with_sessions = false;
}

static void each_request_tells_its_door(void **state)
{
    (void)state;
    cJSON *j = view(3);
    const cJSON *list = json_get(j, "requests");
    assert_string_equal(json_get(cJSON_GetArrayItem(list, 0), "via")->valuestring, "dynamo");
    assert_string_equal(json_get(cJSON_GetArrayItem(list, 1), "via")->valuestring, "http");
    json_free(j);
}

static void without_memory_the_buffer_says_so(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    n_open = 10;
    for (uint64_t fail = 1;; fail++) {
        struct buf b = {0};
        mem_fail_after(fail);
        http_queue_put(NULL, 0, &b);
        mem_fail_after(0);
        bool ok = !b.failed;
        assert_true(ok || b.failed == ST_ENOMEM);
        buf_fini(&b);
        assert_int_equal(mem_live(), live);
        if (ok)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_has_its_name),
        cmocka_unit_test(waiting_ends_with_the_first_token),
        cmocka_unit_test(the_list_is_bounded_and_the_counts_are_not),
        cmocka_unit_test(each_request_tells_its_door),
        cmocka_unit_test(groups_are_of_equal_ids_and_no_id_is_no_group),
        cmocka_unit_test(without_memory_the_buffer_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
