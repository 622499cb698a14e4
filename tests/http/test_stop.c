/* The matcher against a naive one that looks at the whole text after every byte. */
#include "stop.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* Length of the text in front of the first stop string to be complete; the text's length if there is none. */
static size_t naive(struct str text, const struct str *stops, uint32_t n)
{
    for (size_t end = 1; end <= text.n; end++) {
        size_t longest = 0;
        for (uint32_t i = 0; i < n; i++)
            if (stops[i].n <= end && stops[i].n > longest &&
                memcmp(text.p + end - stops[i].n, stops[i].p, stops[i].n) == 0)
                longest = stops[i].n;
        if (longest)
            return end - longest;
    }
    return text.n;
}

/* The most that could still begin a stop string, by trying every suffix. */
static size_t naive_hold(struct str text, const struct str *stops, uint32_t n)
{
    for (size_t k = text.n; k > 0; k--)
        for (uint32_t i = 0; i < n; i++)
            if (stops[i].n > k && memcmp(text.p + text.n - k, stops[i].p, k) == 0)
                return k;
    return 0;
}

static uint32_t rnd(uint32_t *s, uint32_t n)
{
    *s = *s * 1664525u + 1013904223u;
    return (*s >> 8) % n;
}

static void stop_equals_the_naive_matcher(void **state)
{
    (void)state;
    uint32_t seed = (uint32_t)time(NULL);
    print_message("seed %u\n", seed);
    for (int round = 0; round < 20000; round++) {
        char text[64], words[4][8];
        struct str stops[4];
        uint32_t n = rnd(&seed, 4) + (round % 3 == 0), letters = 1 + rnd(&seed, 3);
        n = n > 4 ? 4 : n;
        for (uint32_t i = 0; i < n; i++) {
            stops[i] = (struct str){words[i], 1 + rnd(&seed, 6)};
            for (size_t k = 0; k < stops[i].n; k++)
                words[i][k] = (char)('a' + rnd(&seed, letters));
        }
        struct str whole = {text, rnd(&seed, sizeof text)};
        for (size_t k = 0; k < whole.n; k++)
            text[k] = (char)('a' + rnd(&seed, letters));

        struct stop_set set;
        struct stop_scan scan = {0};
        struct buf out = {0};
        assert_int_equal(stop_set_init(&set, stops, n), ST_OK);
        size_t want = naive(whole, stops, n);
        for (size_t at = 0; at < whole.n;) {
            size_t piece = 1 + rnd(&seed, 5);
            piece = piece > whole.n - at ? whole.n - at : piece;
            assert_int_equal(stop_push(&set, &scan, (struct str){text + at, piece}, &out), ST_OK);
            at += piece;
            if (!scan.hit) /* nothing is held longer than it must be */
                assert_int_equal(out.n, at - naive_hold((struct str){text, at}, stops, n));
        }
        assert_int_equal(stop_flush(&scan, &out), ST_OK);
        assert_int_equal(out.n, want);
        assert_true(out.n == 0 || memcmp(out.p, text, out.n) == 0);
        assert_int_equal(scan.hit, want < whole.n || (n && want == whole.n && scan.hit));
        stop_set_fini(&set);
        stop_scan_fini(&scan);
        buf_fini(&out);
    }
}

static void stop_init_fails_cleanly(void **state)
{
    (void)state;
    const struct str stops[] = {STR_LIT("abc"), STR_LIT("b")};
    uint64_t live = mem_live();
    for (uint64_t n = 1; n <= 2; n++) {
        struct stop_set set;
        mem_fail_after(n);
        int st = stop_set_init(&set, stops, 2);
        mem_fail_after(0);
        assert_int_equal(st, ST_ENOMEM);
        assert_int_equal(mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_equals_the_naive_matcher),
        cmocka_unit_test(stop_init_fails_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
