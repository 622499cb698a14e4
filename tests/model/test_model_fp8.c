/* Folders with weights in e4m3: the same logits, bit for bit, as the folder with their values in f32; scales that are missing,
 * of a foreign kind or no numbers, and NaN codes, are refused by name. Both folders are made here. */
#define _GNU_SOURCE
#include "model_harness.h"
#include "buf.h"
#include "mem.h"

#include <math.h>
#include <unistd.h>

enum { LAYERS = 2, D = 64, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 16, FFN = 80, VOCAB = 65 };
enum flaw { NONE, NO_SCALE, SCALE_OF_BLOCKS, SCALE_TOO_LONG, SCALE_OF_INTEGERS, SCALE_NAN, SCALE_NEGATIVE, NAN_CODE };

static const char config[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"intermediate_size\":80,\"vocab_size\":65,\"max_position_embeddings\":256,"
    "\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":"
    "{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\"}}}}}";
static const char flawed[] = "model.layers.1.mlp.up_proj.weight";

static char folders[2][40] = {"/tmp/stator-fp8-XXXXXX", "/tmp/stator-f32-XXXXXX"};

/* A safetensors file in the making. */
struct writer {
    struct buf head, data;
};

struct twins {
    struct writer file[2]; /* e4m3, f32 */
    uint64_t random;
    uint32_t n_matrices;
    enum flaw flaw;
};

static uint32_t next(struct twins *t)
{
    t->random = t->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(t->random >> 33);
}

static void put(struct writer *w, const char *name, const char *suffix, const char *dtype, const char *shape, const void *p,
                size_t n)
{
    buf_printf(&w->head, "%s\"%s%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
               w->head.n ? "," : "{", name, suffix, dtype, shape, w->data.n, w->data.n + n);
    buf_put(&w->data, p, n);
}

static void put_plain(struct twins *t, const char *name, uint32_t rows, uint32_t k, float middle)
{
    char shape[32];
    size_t n = (size_t)rows * k;
    float *v = malloc(n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = middle + 0.2f * ((float)(next(t) % 2001) / 1000 - 1);
    snprintf(shape, sizeof shape, rows == 1 ? "[%u]" : "[%u,%u]", rows == 1 ? k : rows, k);
    for (int f = 0; f < 2; f++)
        put(&t->file[f], name, "", "F32", shape, v, n * sizeof *v);
    free(v);
}

static double e4m3_value(uint8_t q)
{
    int e = q >> 3 & 15, m = q & 7;
    double v = e != 0 ? ldexp(8 + m, e - 10) : ldexp(m, -9);
    return q & 0x80 ? -v : v;
}

/* The scales of a matrix into file 0, by turns in every spelling; scale[rows] gets their values. */
static void put_scales(struct twins *t, const char *name, uint32_t rows, float *scale)
{
    enum flaw flaw = strcmp(name, flawed) == 0 ? t->flaw : NONE;
    uint32_t kind = t->n_matrices++ % 5;
    bool one = kind >= 3, half = kind == 1 || kind == 4;
    uint16_t bf16[FFN + D];
    char shapes[5][16];
    for (int i = 0; i < 5; i++)
        snprintf(shapes[i], sizeof shapes[i], (const char *const[]){"[%u,1]", "[%u]", "[%u]", "[]", "[1]"}[i], rows);
    for (uint32_t i = 0; i < rows; i++) {
        float s = one && i > 0 ? scale[0] : 0.001f * (1 + (float)(next(t) % 1000) / 1000);
        uint32_t u;
        memcpy(&u, &s, 4);
        u = half ? u & 0xffff0000u : u;
        bf16[i] = (uint16_t)(u >> 16);
        memcpy(&scale[i], &u, 4);
    }
    if (flaw == SCALE_NAN)
        scale[0] = NAN;
    if (flaw == SCALE_NEGATIVE)
        scale[0] = -1;
    uint32_t n = one ? 1 : rows;
    struct writer *w = &t->file[0];
    if (flaw == SCALE_OF_BLOCKS)
        put(w, name, "_scale", "F32", "[2,2]", scale, 16);
    else if (flaw == SCALE_TOO_LONG)
        put(w, name, "_scale", "F32", "[3]", scale, 12);
    else if (flaw == SCALE_OF_INTEGERS)
        put(w, name, "_scale", "I32", "[]", scale, 4);
    else if (flaw == SCALE_NAN || flaw == SCALE_NEGATIVE)
        put(w, name, "_scale", "F32", "[]", scale, 4);
    else if (flaw != NO_SCALE && half)
        put(w, name, "_scale", "BF16", shapes[kind], bf16, n * 2);
    else if (flaw != NO_SCALE)
        put(w, name, "_scale", "F32", shapes[kind], scale, n * 4);
}

static void put_matrix(struct twins *t, const char *name, uint32_t rows, uint32_t k)
{
    char shape[32];
    size_t n = (size_t)rows * k;
    uint8_t *q = malloc(n);
    float *v = malloc(n * sizeof *v), scale[FFN + D];
    put_scales(t, name, rows, scale);
    for (size_t i = 0; i < n; i++) {
        do
            q[i] = (uint8_t)next(t);
        while ((q[i] & 0x7f) == 0x7f);
        v[i] = (float)e4m3_value(q[i]) * scale[i / k];
    }
    if (t->flaw == NAN_CODE && strcmp(name, flawed) == 0)
        q[n - 3] = 0xff;
    snprintf(shape, sizeof shape, "[%u,%u]", rows, k);
    put(&t->file[0], name, "", "F8_E4M3", shape, q, n);
    put(&t->file[1], name, "", "F32", shape, v, n * sizeof *v);
    free(q);
    free(v);
}

static void write_file(const char *folder, const char *name, const void *head, size_t n_head, const void *p, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(head, 1, n_head, f), n_head);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void make_twins(enum flaw flaw)
{
    struct twins t = {.random = 7, .flaw = flaw};
    static const struct {
        const char *name;
        uint32_t rows, k;
    } matrices[] = {{"self_attn.q_proj", HEADS * HEAD_DIM, D}, {"self_attn.k_proj", KV_HEADS * HEAD_DIM, D},
                    {"self_attn.v_proj", KV_HEADS * HEAD_DIM, D}, {"self_attn.o_proj", D, HEADS * HEAD_DIM},
                    {"mlp.gate_proj", FFN, D}, {"mlp.up_proj", FFN, D}, {"mlp.down_proj", D, FFN}};
    char name[64];
    put_plain(&t, "model.embed_tokens.weight", VOCAB, D, 0);
    put_plain(&t, "lm_head.weight", VOCAB, D, 0);
    put_plain(&t, "model.norm.weight", 1, D, 1);
    for (int l = 0; l < LAYERS; l++) {
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", l);
        put_plain(&t, name, 1, D, 1);
        snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", l);
        put_plain(&t, name, 1, D, 1);
        for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, matrices[i].name);
            put_matrix(&t, name, matrices[i].rows, matrices[i].k);
        }
        snprintf(name, sizeof name, "model.layers.%d.self_attn.q_proj.input_scale", l);
        put(&t.file[0], name, "", "F32", "[]", &(float){1e30f}, 4);
    }
    for (int f = 0; f < 2; f++) {
        struct buf head = {0};
        uint64_t n = t.file[f].head.n + 1;
        buf_put(&head, &n, 8);
        buf_put(&head, t.file[f].head.p, t.file[f].head.n);
        buf_putc(&head, '}');
        assert_int_equal(head.failed | t.file[f].data.failed, ST_OK);
        write_file(folders[f], "model.safetensors", head.p, head.n, t.file[f].data.p, t.file[f].data.n);
        write_file(folders[f], "config.json", config, sizeof config - 1, "", 0);
        buf_fini(&head);
        buf_fini(&t.file[f].head);
        buf_fini(&t.file[f].data);
    }
}

static void e4m3_is_its_values_in_f32(void **state)
{
    (void)state;
    int32_t tokens[40];
    struct harness_span span = {0, 0, 40, tokens};
    for (int i = 0; i < 40; i++)
        tokens[i] = (i * 13 + 5) % VOCAB;
    make_twins(NONE);
    for (int exact = 0; exact < 2; exact++) {
        struct harness h[2];
        for (int f = 0; f < 2; f++) {
            assert_int_equal(harness_open(&h[f], folders[f], exact, 2), ST_OK);
            assert_int_equal(harness_step(&h[f], &span, 1), ST_OK);
        }
        assert_string_equal(model_info(h[0].model)->quant, "E4M3");
        assert_int_equal(model_info(h[0].model)->n_params, model_info(h[1].model)->n_params);
        assert_memory_equal(h[0].logits, h[1].logits, 40 * VOCAB * sizeof(float));
        for (int i = 0; i < 40 * VOCAB; i++)
            assert_true(isfinite(h[0].logits[i]) && h[0].logits[i] != 0);
        harness_close(&h[0]);
        harness_close(&h[1]);
    }
    assert_int_equal(mem_live(), 0);
}

static int try_load(struct err *e)
{
    struct be *be = NULL;
    struct model *m = NULL;
    struct be_options o = {.device = "cpu", .threads = 1};
    struct model_load_options load = {.max_rows = 8};
    memset(e, 0, sizeof *e);
    int rc = model_open(&m, folders[0], e);
    if (rc == ST_OK)
        rc = be_create(&be, &o, e);
    if (rc == ST_OK)
        rc = model_load(m, be, &load, e);
    model_destroy(m);
    be_destroy(be);
    assert_int_equal(mem_live(), 0);
    return rc;
}

static void flaws_are_named(void **state)
{
    (void)state;
#define UP "model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight"
    static const struct {
        enum flaw flaw;
        int status;
        const char *says;
    } cases[] = {
        {NO_SCALE, ST_EFORMAT, UP "_scale' is missing beside weights of F8_E4M3"},
        {SCALE_OF_BLOCKS, ST_EUNSUP, UP "_scale': its shape is [2, 2]; one scale per row (80) or one for all is supported"},
        {SCALE_TOO_LONG, ST_EUNSUP, UP "_scale': its shape is [3]; one scale per row (80) or one for all is supported"},
        {SCALE_OF_INTEGERS, ST_EUNSUP, UP "_scale': scales of type I32 are not supported"},
        {SCALE_NAN, ST_EFORMAT, UP "_scale': the scale of row 0 is nan"},
        {SCALE_NEGATIVE, ST_EFORMAT, UP "_scale': the scale of row 0 is -1"},
        {NAN_CODE, ST_EFORMAT, UP "' holds NaN"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e;
        make_twins(cases[i].flaw);
        assert_int_equal(try_load(&e), cases[i].status);
        assert_string_equal(e.text, cases[i].says);
    }
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    make_twins(NONE);
    int rc = ST_ENOMEM;
    for (uint64_t n = 1; rc != ST_OK; n++) {
        struct err e;
        mem_fail_after(n);
        rc = try_load(&e);
        mem_fail_after(0);
        assert_true(rc == ST_OK || rc == ST_ENOMEM);
        assert_true(n < 1000);
    }
}

static int make_folders(void **state)
{
    (void)state;
    return mkdtemp(folders[0]) != NULL && mkdtemp(folders[1]) != NULL ? 0 : -1;
}

static int drop_folders(void **state)
{
    (void)state;
    for (int f = 0; f < 2; f++) {
        char path[128];
        snprintf(path, sizeof path, "%s/model.safetensors", folders[f]);
        unlink(path);
        snprintf(path, sizeof path, "%s/config.json", folders[f]);
        unlink(path);
        rmdir(folders[f]);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(e4m3_is_its_values_in_f32),
        cmocka_unit_test(flaws_are_named),
        cmocka_unit_test(failed_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, make_folders, drop_folders);
}
