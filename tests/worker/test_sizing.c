/* Goal: the chosen pool always holds one full context, and what was asked is kept or refused by name.
 * Method: tables, then random inputs against the invariants. */
#define _GNU_SOURCE
#include "put_file.h"
#include "sizing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static const struct sizing_input base = {.context_max = 8192,
                                         .block_tokens = 16,
                                         .block_bytes = 360 << 10,
                                         .memory_available = UINT64_C(20) << 30,
                                         .weight_bytes = 98 << 20,
                                         .max_num_seqs = 32};

static void defaults_take_the_models_context(void **state)
{
    (void)state;
    struct sizing s;
    struct err e = {0};
    assert_int_equal(sizing_choose(&s, &base, &e), ST_OK);
    assert_int_equal(s.context_length, 8192);
    assert_true(s.kv_bytes <= UINT64_C(4) << 30);
    assert_non_null(strstr(s.why, "the model's own"));
}

static void little_memory_shrinks_the_context(void **state)
{
    (void)state;
    struct sizing_input in = base;
    struct sizing s;
    struct err e = {0};
    in.memory_available = (98 << 20) + (64 << 20);
    assert_int_equal(sizing_choose(&s, &in, &e), ST_OK);
    assert_int_equal(s.n_blocks, (32 << 20) / (360 << 10));
    assert_int_equal(s.context_length, s.n_blocks * 16);
    in.context_asked = 8192;
    assert_int_equal(sizing_choose(&s, &in, &e), ST_ENOMEM);
    assert_string_equal(
        e.text,
        "--context-length: 8192 tokens need 512 KV blocks, memory holds 91: lower it or raise --kv-bytes");
}

static void what_cannot_be_is_refused_by_name(void **state)
{
    (void)state;
    struct sizing_input in = base;
    struct sizing s;
    struct err e = {0};
    in.context_asked = 10000;
    assert_int_equal(sizing_choose(&s, &in, &e), ST_EINVAL);
    assert_string_equal(e.text, "--context-length: 10000 is above the model's 8192");
    in = base;
    in.kv_bytes_asked = 1000;
    assert_int_equal(sizing_choose(&s, &in, &e), ST_ENOMEM);
    assert_string_equal(e.text, "--kv-bytes: 1000 bytes hold no KV block (368640 bytes each)");
    in = base;
    in.memory_available = (98 << 20) + 800000;
    in.kv_bytes_asked = 800000;
    assert_int_equal(sizing_choose(&s, &in, &e), ST_OK);
    in.kv_bytes_asked = 800001;
    assert_int_equal(sizing_choose(&s, &in, &e), ST_ENOMEM);
    assert_string_equal(e.text, "--kv-bytes: 800001 bytes, of which the host has 800000 free beside the weights");
}

static void any_choice_holds_one_context(void **state)
{
    (void)state;
    srand(5);
    for (int i = 0; i < 100000; i++) {
        struct sizing_input in = {.context_asked = rand() % 2 ? (uint64_t)rand() % 20000 : 0,
                                  .kv_bytes_asked = rand() % 2 ? (uint64_t)rand() << (rand() % 20) : 0,
                                  .context_max = 1 + (uint64_t)rand() % 200000,
                                  .block_tokens = 16u << rand() % 7,
                                  .block_bytes = 1 + (uint64_t)rand() % (8 << 20),
                                  .memory_available = (uint64_t)rand() << rand() % 12,
                                  .weight_bytes = (uint64_t)rand() << rand() % 8,
                                  .max_num_seqs = 1 + (uint64_t)rand() % 1024};
        struct sizing s;
        if (sizing_choose(&s, &in, NULL))
            continue;
        assert_true((uint64_t)s.n_blocks * in.block_tokens >= s.context_length);
        assert_true(s.context_length >= 1 && s.context_length <= in.context_max);
        if (in.context_asked)
            assert_int_equal(s.context_length, in.context_asked);
        if (in.kv_bytes_asked)
            assert_true(s.kv_bytes <= in.kv_bytes_asked);
    }
    assert_true(sizing_memory_available("") > 0);
}

static void kept_files_are_free_memory_in_a_group_too(void **state)
{
    (void)state;
    static const char *const folders[] = {"/proc", "/sys", "/sys/fs", "/sys/fs/cgroup"};
    static const char max[] = "/sys/fs/cgroup/memory.max", current[] = "/sys/fs/cgroup/memory.current",
                      stat[] = "/sys/fs/cgroup/memory.stat";
    char root[] = "/tmp/sizing.XXXXXX", path[64];
    assert_non_null(mkdtemp(root));
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", root, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    assert_true(sizing_memory_available(root) == UINT64_MAX);
    put_file(root, "/proc/meminfo", "MemTotal: 2000 kB\nMemAvailable:  1000 kB\n");
    assert_int_equal(sizing_memory_available(root), 1024000);
    put_file(root, max, "max\n");
    put_file(root, current, "900000\n");
    assert_int_equal(sizing_memory_available(root), 1024000);
    put_file(root, max, "1000000\n");
    assert_int_equal(sizing_memory_available(root), 100000);
    put_file(root, stat, "file 700000\ninactive_file 300000\nactive_file 200000\n");
    assert_int_equal(sizing_memory_available(root), 600000);
    put_file(root, stat, "inactive_file 99999999\n");
    assert_int_equal(sizing_memory_available(root), 1000000);
    put_file(root, max, "800000\n");
    put_file(root, stat, NULL);
    assert_int_equal(sizing_memory_available(root), 0);
    put_file(root, max, NULL);
    put_file(root, current, NULL);
    put_file(root, "/proc/meminfo", NULL);
    for (int i = 4; i-- > 0;) {
        snprintf(path, sizeof path, "%s%s", root, folders[i]);
        assert_int_equal(rmdir(path), 0);
    }
    assert_int_equal(rmdir(root), 0);
}

static void a_device_gives_all_that_is_left(void **state)
{
    (void)state;
    struct sizing_input in = base;
    struct sizing s;
    struct err e = {0};
    in.device = true;
    in.weight_bytes = 0;
    in.context_max = 131072;
    in.memory_available = UINT64_C(10) << 30;
    assert_int_equal(sizing_choose(&s, &in, &e), ST_OK);
    assert_int_equal(s.n_blocks, (UINT64_C(10) << 30) / (360 << 10));
    assert_int_equal(s.context_length, 131072);
    assert_non_null(strstr(s.why, "--gpu-memory-utilization"));
    in.memory_available = 1000;
    assert_int_equal(sizing_choose(&s, &in, &e), ST_ENOMEM);
    assert_string_equal(e.text, "--gpu-memory-utilization: 1000 bytes hold no KV block (368640 bytes each): raise it, or lower "
                                "--max-num-batched-tokens or --max-num-seqs");
}

static void a_host_tier_holds_whole_blocks_and_fits_the_host(void **state)
{
    (void)state;
    uint32_t n = 7;
    struct err e = {0};
    assert_int_equal(sizing_host_blocks(&n, 0, 1000, 5000, &e), ST_OK);
    assert_int_equal(n, 0);
    assert_int_equal(sizing_host_blocks(&n, 4999, 1000, 5000, &e), ST_OK);
    assert_int_equal(n, 4);
    assert_int_equal(sizing_host_blocks(&n, 999, 1000, 5000, &e), ST_EINVAL);
    assert_string_equal(e.text, "--host-kv-bytes: 999 bytes hold no KV block (1000 bytes each)");
    assert_int_equal(sizing_host_blocks(&n, 5001, 1000, 5000, &e), ST_ENOMEM);
    assert_string_equal(e.text, "--host-kv-bytes: 5001 bytes, of which the host has 5000 free");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_tier_holds_whole_blocks_and_fits_the_host),
        cmocka_unit_test(kept_files_are_free_memory_in_a_group_too),
        cmocka_unit_test(a_device_gives_all_that_is_left),
        cmocka_unit_test(defaults_take_the_models_context),
        cmocka_unit_test(little_memory_shrinks_the_context),
        cmocka_unit_test(what_cannot_be_is_refused_by_name),
        cmocka_unit_test(any_choice_holds_one_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
