/* Goal: BLAKE3 equals the reference on lengths around every block, chunk and subtree edge.
 * Method: known answers for the pattern byte i = i mod 251 (the official vectors' input), made with the PyPI package blake3:
 * python3 -c "import blake3; print(blake3.blake3(bytes(i % 251 for i in range(N))).hexdigest())" */
#include "hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const struct {
    size_t n;
    const char *hex;
} known[] = {
#include "golden/blake3.inc"
};

static void hash_equals_the_reference(void **state)
{
    (void)state;
    static uint8_t in[200000];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i % 251);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        uint8_t out[HASH_BYTES];
        char hex[65];
        hash_once(in, known[k].n, out);
        for (int i = 0; i < HASH_BYTES; i++)
            snprintf(hex + 2 * i, 3, "%02x", out[i]);
        assert_string_equal(hex, known[k].hex);
    }
}

static void hash_does_not_depend_on_the_cuts(void **state)
{
    (void)state;
    uint8_t in[5000], whole[HASH_BYTES], cut[HASH_BYTES];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 7);
    hash_once(in, sizeof in, whole);
    for (size_t step = 1; step < 1500; step += 13) {
        struct hash h;
        hash_init(&h);
        for (size_t at = 0; at < sizeof in; at += step)
            hash_update(&h, in + at, sizeof in - at < step ? sizeof in - at : step);
        hash_final(&h, cut);
        assert_memory_equal(whole, cut, HASH_BYTES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_equals_the_reference),
        cmocka_unit_test(hash_does_not_depend_on_the_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
