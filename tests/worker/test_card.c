/* Where frontends are told to fetch the card's files. What the card says of a model is tests/dynamo/test_dyn_card.c; that a
 * frontend finds the files there, tests/e2e. */
#include "card.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void its_files_lie_under_the_address_of_the_status_server(void **state)
{
    (void)state;
    static const struct {
        const char *host, *url;
    } cases[] = {{"10.1.2.3", "http://10.1.2.3:8081/v1/stator/model"},
                 {"worker-7.local", "http://worker-7.local:8081/v1/stator/model"},
                 {"fd00::7", "http://[fd00::7]:8081/v1/stator/model"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct card c = {0};
        assert_int_equal(card_serve(&c, cases[i].host, 8081, NULL), ST_OK);
        assert_string_equal(c.card.base_url, cases[i].url);
        card_close(&c);
        assert_null(c.card.base_url);
    }
    assert_int_equal(mem_live(), 0);
}

static void without_memory_there_is_no_address(void **state)
{
    (void)state;
    struct card c = {0};
    struct err e = {0};
    mem_fail_after(1);
    assert_int_equal(card_serve(&c, "10.1.2.3", 1, &e), ST_ENOMEM);
    mem_fail_after(0);
    assert_true(e.text[0] != 0);
    card_close(&c);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_files_lie_under_the_address_of_the_status_server),
        cmocka_unit_test(without_memory_there_is_no_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
