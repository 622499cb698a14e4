/* model: what it says about itself, and that files whose parts contradict each other end in a sentence,
 * not in a kernel. */
#define _GNU_SOURCE
#include "buf.h"
#include "mem.h"
#include "model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN STATOR_SOURCE_DIR "/tests/golden/model/"

static char temp_path[] = "/tmp/stator-model-XXXXXX";

static struct buf read_file(const char *path)
{
    struct buf b = {0};
    char chunk[4096];
    size_t n;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        assert_int_equal(buf_put(&b, chunk, n), ST_OK);
    fclose(f);
    return b;
}

static void write_temp(const char *p, size_t n)
{
    FILE *f = fopen(temp_path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Opens and loads; everything is gone again afterwards. */
static int try_load(const char *path, struct err *e)
{
    struct be *be = NULL;
    struct model *m = NULL;
    struct be_options o = {.device = "cpu", .threads = 1};
    struct model_load_options load = {.max_rows = 8};
    memset(e, 0, sizeof *e);
    int rc = model_open(&m, path, e);
    if (rc == ST_OK)
        rc = be_create(&be, &o, e);
    if (rc == ST_OK)
        rc = model_load(m, be, &load, e);
    model_destroy(m);
    be_destroy(be);
    return rc;
}

static void dummy_weights_follow_the_numbers_alone(void **state)
{
    (void)state;
    struct hparams h = {.arch = "llama", .name = "tiny", .n_layers = 2, .d = 64, .n_heads = 4, .n_kv_heads = 2, .head_dim = 16,
                        .ffn = 96, .vocab = 100, .context_max = 64, .rot_dim = 16, .rms_eps = 1e-5, .rope_theta = 1e4, .bos = -1};
    struct be_options o = {.device = "cpu", .threads = 1};
    struct model_load_options load = {.max_rows = 8};
    struct model *m[3] = {0};
    struct be *be = NULL;
    struct err e = {0};
    assert_int_equal(be_create(&be, &o, &e), ST_OK);
    for (int i = 0; i < 3; i++) {
        h.ffn = i == 2 ? 128 : 96;
        if (model_open_hparams(&m[i], &h, &e) != ST_OK || model_load(m[i], be, &load, &e) != ST_OK)
            fail_msg("%s", e.text);
    }
    const struct model_info *a = model_info(m[0]), *b = model_info(m[1]), *c = model_info(m[2]);
    assert_memory_equal(a->fingerprint, b->fingerprint, sizeof a->fingerprint);
    assert_memory_not_equal(a->fingerprint, c->fingerprint, sizeof a->fingerprint);
    assert_int_equal(a->n_params, 2 * (64 * 12 * 16 + 3 * 64 * 96 + 2 * 64) + 2 * 64 * 100 + 64);
    assert_true(model_weight_bytes(m[0]) >= 2 * a->n_params);
    for (int i = 0; i < 3; i++)
        model_destroy(m[i]);
    be_destroy(be);
    h.n_heads = 3;
    assert_int_equal(model_open_hparams(&m[0], &h, &e), ST_EFORMAT);
    snprintf(h.arch, sizeof h.arch, "mamba");
    assert_int_equal(model_open_hparams(&m[0], &h, &e), ST_EUNSUP);
}

static void info_says_what_the_file_is(void **state)
{
    (void)state;
    struct model *m;
    struct err e = {0};
    assert_int_equal(model_open(&m, GOLDEN "gguf_q4_k_m/model.gguf", &e), ST_OK);
    const struct model_info *i = model_info(m);
    assert_string_equal(i->arch, "llama");
    assert_string_equal(i->name, "tiny gguf_q4_k_m");
    assert_string_equal(i->file, "model.gguf");
    assert_string_equal(i->quant, "Q4_K");
    assert_true(i->n_layers == 1 && i->d == 256 && i->n_heads == 4 && i->n_kv_heads == 1 &&
                i->head_dim == 64);
    assert_true(i->ffn == 256 && i->vocab == 65 && i->context_max == 256 && i->tied && i->bos == 1);
    assert_true(i->n_eos == 1 && i->eos[0] == 2 && model_gguf(m) != NULL);
    assert_int_equal(i->n_params, 65 * 256 + 2 * 256 * 256 + 2 * 64 * 256 + 3 * 256 * 256 + 3 * 256);
    model_destroy(m);
    assert_int_equal(model_open(&m, GOLDEN "bf16_shards/", &e), ST_OK);
    i = model_info(m);
    assert_string_equal(i->file, "bf16_shards");
    assert_string_equal(i->name, "bf16_shards");
    assert_string_equal(i->quant, "BF16");
    assert_true(!i->tied && i->tensor_bytes == i->n_params * 2 && i->file_bytes > i->tensor_bytes);
    assert_null(model_gguf(m));
    model_destroy(m);
    assert_int_equal(mem_live(), 0);
}

static void fingerprints_tell_models_apart(void **state)
{
    (void)state;
    static const char *const paths[] = {GOLDEN "tied", GOLDEN "gguf_f32/model.gguf",
                                        GOLDEN "gguf_f16/model.gguf", GOLDEN "gguf_q4_0/model.gguf",
                                        GOLDEN "mistral_window"};
    uint8_t prints[6][MODEL_FINGERPRINT_BYTES];
    struct model *m;
    struct err e = {0};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(model_open(&m, paths[i], &e), ST_OK);
        memcpy(prints[i], model_info(m)->fingerprint, sizeof prints[i]);
        model_destroy(m);
    }
    /* The last byte of a tensor's data differs. */
    struct buf b = read_file(paths[1]);
    b.p[b.n - 1] ^= 1;
    write_temp(b.p, b.n);
    assert_int_equal(model_open(&m, temp_path, &e), ST_OK);
    memcpy(prints[5], model_info(m)->fingerprint, sizeof prints[5]);
    model_destroy(m);
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(prints[i], prints[j], sizeof prints[i]);
    assert_int_equal(model_open(&m, paths[1], &e), ST_OK);
    assert_memory_equal(model_info(m)->fingerprint, prints[1], sizeof prints[1]);
    model_destroy(m);
    buf_fini(&b);
}

struct seen {
    size_t calls, last, total;
};

static void note(void *user, size_t done, size_t total)
{
    struct seen *s = user;
    assert_true(done > s->last && done <= total);
    s->calls++;
    s->last = done;
    s->total = total;
}

static void progress_ends_at_the_total(void **state)
{
    (void)state;
    struct be *be;
    struct model *m;
    struct err e = {0};
    struct seen seen = {0};
    struct be_options o = {.device = "cpu", .threads = 1};
    struct model_load_options load = {.max_rows = 8, .progress = note, .user = &seen};
    assert_int_equal(be_create(&be, &o, &e), ST_OK);
    assert_int_equal(model_open(&m, GOLDEN "gguf_bf16/model.gguf", &e), ST_OK);
    assert_int_equal(model_weight_bytes(m), 0);
    assert_int_equal(model_load(m, be, &load, &e), ST_OK);
    assert_int_equal(seen.last, seen.total);
    assert_int_equal(seen.total, model_info(m)->tensor_bytes);
    assert_int_equal(model_max_context(m), 256);
    assert_true(seen.calls > 10 && model_weight_bytes(m) > 0);
    model_destroy(m);
    be_destroy(be);
    assert_int_equal(mem_live(), 0);
}

/* Overwrites the u32 value of a key of the q4_0 file, loads, and expects the sentence. */
static void lie(const char *key, uint32_t value, const char *says)
{
    struct buf b = read_file(GOLDEN "gguf_q4_0/model.gguf");
    struct err e;
    char *at = memmem(b.p, b.n, key, strlen(key));
    assert_non_null(at);
    memcpy(at + strlen(key) + 4, &value, 4);
    write_temp(b.p, b.n);
    int rc = try_load(temp_path, &e);
    assert_true(rc == ST_EFORMAT || rc == ST_EUNSUP);
    if (strstr(e.text, says) == NULL)
        fail_msg("%s = %u: '%s' does not say '%s'", key, value, e.text, says);
    buf_fini(&b);
    assert_int_equal(mem_live(), 0);
}

static void numbers_that_the_tensors_contradict_are_refused(void **state)
{
    (void)state;
    lie("llama.block_count", 2, "tensor 'blk.1.attn_norm.weight' is missing");
    lie("llama.block_count", 0, "key 'llama.block_count': 0 is not within 1 to 1024");
    lie("llama.block_count", UINT32_MAX, "key 'llama.block_count': 4294967295 is not within 1 to 1024");
    lie("llama.embedding_length", 32,
        "tensor 'token_embd.weight': its shape is [65, 64], the config asks for [65, 32]");
    lie("llama.vocab_size", 66,
        "tensor 'token_embd.weight': its shape is [65, 64], the config asks for [66, 64]");
    lie("llama.feed_forward_length", 128, "its shape is [96, 64], the config asks for [128, 64]");
    lie("llama.attention.head_count", 8,
        "tensor 'blk.0.attn_q.weight': its shape is [64, 64], the config asks for");
    lie("llama.attention.head_count_kv", 4, "tensor 'blk.0.attn_k.weight': its shape is [32, 64]");
    lie("llama.attention.head_count_kv", 3, "4 query heads do not divide over 3 KV heads");
    lie("llama.attention.key_length", 32,
        "key 'llama.attention.value_length': 16 differs from key_length 32");
    lie("llama.rope.dimension_count", 18, "18 rotated dims in heads of 16");
    lie("general.architecture", UINT32_MAX, "key 'general.architecture'");
}

static void every_cut_of_a_model_file_is_refused(void **state)
{
    (void)state;
    struct buf b = read_file(GOLDEN "gguf_q4_0/model.gguf");
    struct err e;
    for (size_t n = 0; n < b.n; n += n < 2000 ? 13 : 997) {
        write_temp(b.p, n);
        assert_int_equal(try_load(temp_path, &e), ST_EFORMAT);
        assert_non_null(strstr(e.text, strrchr(temp_path, '/') + 1));
    }
    buf_fini(&b);
    assert_int_equal(mem_live(), 0);
}

static void types_that_no_kernel_reads_are_refused_when_used(void **state)
{
    (void)state;
    struct buf b = read_file(GOLDEN "gguf_f16/model.gguf");
    struct err e;
    static const char name[] = "blk.0.ffn_up.weight";
    char *at = memmem(b.p, b.n, name, sizeof name - 1);
    assert_non_null(at);
    uint32_t q5_k = 13;
    memcpy(at + sizeof name - 1 + 4 + 16, &q5_k, 4);
    write_temp(b.p, b.n);
    assert_int_equal(try_load(temp_path, &e), ST_EUNSUP);
    assert_non_null(strstr(e.text, "tensor 'blk.0.ffn_up.weight': type Q5_K is not supported"));
    buf_fini(&b);
}

static void missing_paths_and_folders_are_named(void **state)
{
    (void)state;
    struct err e;
    assert_int_equal(try_load("/nonexistent/model.gguf", &e), ST_ENOENT);
    assert_non_null(strstr(e.text, "/nonexistent/model.gguf"));
    assert_int_equal(try_load(GOLDEN, &e), ST_ENOENT);
    assert_non_null(strstr(e.text, "config.json"));
    assert_int_equal(mem_live(), 0);
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    static const char *const paths[] = {GOLDEN "gguf_bf16/model.gguf", GOLDEN "bias_headdim"};
    for (int i = 0; i < 2; i++) {
        int rc = ST_ENOMEM;
        struct err e;
        for (uint64_t n = 1; rc != ST_OK; n++) {
            mem_fail_after(n);
            rc = try_load(paths[i], &e);
            mem_fail_after(0);
            if (rc != ST_OK && rc != ST_ENOMEM)
                fail_msg("allocation %llu: %s: %s", (unsigned long long)n, status_name(rc), e.text);
            assert_int_equal(mem_live(), 0);
            assert_true(n < 1000);
        }
    }
}

static int make_temp(void **state)
{
    (void)state;
    int fd = mkstemp(temp_path);
    return fd < 0 ? -1 : close(fd);
}

static int drop_temp(void **state)
{
    (void)state;
    return unlink(temp_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dummy_weights_follow_the_numbers_alone),
        cmocka_unit_test(info_says_what_the_file_is),
        cmocka_unit_test(fingerprints_tell_models_apart),
        cmocka_unit_test(progress_ends_at_the_total),
        cmocka_unit_test(numbers_that_the_tensors_contradict_are_refused),
        cmocka_unit_test(every_cut_of_a_model_file_is_refused),
        cmocka_unit_test(types_that_no_kernel_reads_are_refused_when_used),
        cmocka_unit_test(missing_paths_and_folders_are_named),
        cmocka_unit_test(failed_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, make_temp, drop_temp);
}
