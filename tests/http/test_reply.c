/* A stream's bytes are read in whatever pieces, as they were written; what its last frame is; what a client left unread. */
#include "clock.h"
#include "http_reply.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct api_head chat = {.endpoint = API_CHAT, .id = STR_LIT("chatcmpl-1"), .model = STR_LIT("m"), .created = 7};
static const char keep_alive[] = ": keep-alive\n\n";

static struct str all_of(struct http_reply *r, char *text, size_t max)
{
    long n = http_reply_read(r, text, max);
    assert_true(n >= 0);
    return (struct str){text, (size_t)n};
}

static void a_stream_ends_with_its_error_or_its_usage_and_done(void **state)
{
    (void)state;
    const struct api_usage usage = {.prompt = 3, .completion = 4, .cached = 1};
    static const struct {
        int status;
        bool usage;
        const char *has, *has_not;
    } cases[] = {{ST_OK, false, "data: [DONE]", "\"usage\":{"},
                 {ST_OK, true, "\"completion_tokens\":4", "\"error\""},
                 {ST_EDRAIN, true, "\"The reason\"", "\"usage\":{"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_reply r = {0};
        char text[1024] = {0};
        http_reply_begin(&r, &chat, NULL);
        assert_int_equal(http_reply_read(&r, text, sizeof text), 0); /* nothing yet */
        http_reply_end(&r, cases[i].status, "The reason", cases[i].usage ? &usage : NULL);
        struct str all = all_of(&r, text, sizeof text - 1);
        assert_non_null(strstr(text, cases[i].has));
        assert_null(strstr(text, cases[i].has_not));
        assert_string_equal(text + all.n - 14, "data: [DONE]\n\n");
        assert_int_equal(http_reply_read(&r, text, sizeof text), -1);
        http_reply_fini(&r);
    }
}

static void a_silent_stream_is_kept_alive_by_a_comment(void **state)
{
    (void)state;
    struct http_reply r = {0};
    char text[64];
    int64_t before = clock_now_ns();
    http_reply_begin(&r, &chat, NULL);
    assert_true(r.last_ns >= before);
    http_reply_keep_alive(&r, before + 5 * (int64_t)NS_PER_S);
    assert_true(r.last_ns == before + 5 * (int64_t)NS_PER_S);
    assert_true(str_eq(all_of(&r, text, sizeof text), STR_LIT(": keep-alive\n\n")));
    http_reply_fini(&r);
}

/* Against the count of bytes written and read; the text repeats, so that its place tells which byte must come. */
static void any_pieces_give_the_same_bytes(void **state)
{
    (void)state;
    enum { PERIOD = sizeof keep_alive - 1 };
    static char out[100000];
    struct http_reply r = {0};
    size_t written = 0, read = 0;
    unsigned seed = 20261122;
    printf("seed %u\n", seed);
    srand(seed);
    http_reply_begin(&r, &chat, NULL);
    for (int turn = 0; turn < 3000; turn++) {
        for (int i = rand() % 400; i > 0; i--, written += PERIOD)
            http_reply_keep_alive(&r, 1);
        assert_int_equal(http_reply_unread(&r), written - read);
        size_t max = (size_t)rand() % (rand() % 8 ? 4000 : sizeof out) + 1;
        long n = http_reply_read(&r, out, max);
        assert_true(n >= 0 && (size_t)n == (max < written - read ? max : written - read));
        for (long i = 0; i < n; i++)
            if (out[i] != keep_alive[(read + (size_t)i) % PERIOD])
                fail_msg("byte %zu differs", read + (size_t)i);
        read += (size_t)n;
    }
    assert_false(r.out.failed);
    http_reply_fini(&r);
    assert_int_equal(mem_live(), 0);
}

static void what_has_no_memory_says_so(void **state)
{
    (void)state;
    struct http_reply r = {0};
    http_reply_begin(&r, &chat, NULL);
    mem_fail_after(1);
    http_reply_keep_alive(&r, 1);
    mem_fail_after(0);
    assert_int_equal(r.out.failed, ST_ENOMEM);
    http_reply_fini(&r);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_ends_with_its_error_or_its_usage_and_done),
        cmocka_unit_test(a_silent_stream_is_kept_alive_by_a_comment),
        cmocka_unit_test(any_pieces_give_the_same_bytes),
        cmocka_unit_test(what_has_no_memory_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
