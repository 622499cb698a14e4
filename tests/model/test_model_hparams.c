/* hparams: config.json and generation_config.json as transformers writes them, old and new; what is not
 * carried out is refused by name. */
#include "hparams.h"
#include "json.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define SHAPE                                                                                        \
    "\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":4,\"intermediate_size\":96," \
    "\"vocab_size\":100"
#define LLAMA(more) "{\"architectures\":[\"LlamaForCausalLM\"]," SHAPE more "}"
#define MISTRAL(more) "{\"architectures\":[\"MistralForCausalLM\"],\"num_key_value_heads\":2," SHAPE more "}"

static struct hparams read_ok(const char *config, const char *generation)
{
    struct hparams h;
    struct err e = {0};
    int rc = hparams_hf(&h, str_from(config), str_from(generation), &e);
    if (rc != ST_OK)
        fail_msg("%s", e.text);
    return h;
}

static void refused(const char *config, int status, const char *says)
{
    struct hparams h;
    struct err e = {0};
    assert_int_equal(hparams_hf(&h, str_from(config), str_from(NULL), &e), status);
    if (strcmp(e.text, says) != 0)
        fail_msg("'%s' instead of '%s'", e.text, says);
}

static void defaults_are_those_of_transformers(void **state)
{
    (void)state;
    struct hparams h = read_ok(LLAMA(""), NULL);
    assert_string_equal(h.arch, "llama");
    assert_true(h.n_layers == 2 && h.d == 64 && h.n_heads == 4 && h.n_kv_heads == 4 && h.head_dim == 16);
    assert_true(h.ffn == 96 && h.vocab == 100 && h.context_max == 2048 && h.window == 0 && h.rot_dim == 16);
    assert_true(h.rms_eps == 1e-6 && h.rope_theta == 10000 && h.scaling == HPARAMS_SCALING_NONE);
    assert_true(!h.tied && !h.attn_bias && !h.mlp_bias && h.bos == -1 && h.n_eos == 0);
}

static void every_field_is_read(void **state)
{
    (void)state;
    struct hparams h =
        read_ok(LLAMA(",\"num_key_value_heads\":2,\"head_dim\":32,\"max_position_embeddings\":512,"
                      "\"rms_norm_eps\":1e-5,\"rope_theta\":5e5,\"tie_word_embeddings\":true,"
                      "\"attention_bias\":true,\"mlp_bias\":false,\"bos_token_id\":1,"
                      "\"eos_token_id\":[2,3],\"hidden_act\":\"silu\",\"rope_scaling\":null,"
                      "\"_name_or_path\":\"some/model\",\"quantization_config\":null"),
                "{\"eos_token_id\":[3,4],\"bos_token_id\":9}");
    assert_string_equal(h.name, "some/model");
    assert_true(h.n_kv_heads == 2 && h.head_dim == 32 && h.rot_dim == 32 && h.context_max == 512);
    assert_true(h.rms_eps == 1e-5 && h.rope_theta == 5e5 && h.tied && h.attn_bias && !h.mlp_bias &&
                h.bos == 1);
    assert_true(h.n_eos == 3 && h.eos[0] == 2 && h.eos[1] == 3 && h.eos[2] == 4);
}

static void both_spellings_of_scaling_mean_the_same(void **state)
{
    (void)state;
#define NUMBERS                                                                                             \
    "\"factor\":8.0,\"low_freq_factor\":1.5,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":" \
    "8192,"
    static const char *const configs[] = {
        LLAMA(",\"rope_theta\":500000.0,\"rope_scaling\":{" NUMBERS "\"rope_type\":\"llama3\"}"),
        LLAMA(",\"rope_parameters\":{" NUMBERS "\"rope_theta\":500000.0,\"rope_type\":\"llama3\"}"),
    };
    for (int i = 0; i < 2; i++) {
        struct hparams h = read_ok(configs[i], NULL);
        assert_true(h.scaling == HPARAMS_SCALING_LLAMA3 && h.rope_theta == 500000 && h.rope_factor == 8);
        assert_true(h.rope_low == 1.5 && h.rope_high == 4 && h.rope_original == 8192);
    }
    struct hparams h = read_ok(LLAMA(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}"), NULL);
    assert_true(h.scaling == HPARAMS_SCALING_LINEAR && h.rope_factor == 2.5);
    h = read_ok(LLAMA(",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7.0}"), NULL);
    assert_true(h.scaling == HPARAMS_SCALING_NONE && h.rope_theta == 7);
}

static void mistral_has_a_window_unless_it_says_null(void **state)
{
    (void)state;
    assert_int_equal(read_ok(MISTRAL(""), NULL).window, 4096);
    assert_int_equal(read_ok(MISTRAL(",\"sliding_window\":null"), NULL).window, 0);
    assert_int_equal(read_ok(MISTRAL(",\"sliding_window\":8"), NULL).window, 8);
    assert_int_equal(read_ok(LLAMA(",\"sliding_window\":8"), NULL).window, 0);
}

static void what_is_not_carried_out_is_refused_by_name(void **state)
{
    (void)state;
    refused("{\"architectures\":[\"MambaForCausalLM\"]}", ST_EUNSUP,
            "config.json: architectures: 'MambaForCausalLM' is not supported");
    refused(LLAMA(",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}"), ST_EUNSUP,
            "config.json: rope_scaling.rope_type: 'yarn' is not supported");
    refused(LLAMA(",\"rope_parameters\":{\"rope_type\":\"longrope\"}"), ST_EUNSUP,
            "config.json: rope_parameters.rope_type: 'longrope' is not supported");
    refused(LLAMA(",\"hidden_act\":\"gelu\""), ST_EUNSUP, "config.json: hidden_act: 'gelu' is not supported");
    refused(LLAMA(",\"quantization_config\":{\"quant_method\":\"awq\"}"), ST_EUNSUP,
            "config.json: quantization_config: 'awq' is not supported");
}

#define QUANT(fields) LLAMA(",\"quantization_config\":{" fields "}")
#define GROUP(weights)                                                                     \
    QUANT("\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":{\"weights\":" weights \
          ",\"input_activations\":null}}")

static void e4m3_is_taken_and_other_quantisation_refused(void **state)
{
    (void)state;
    static const char *const taken[] = {
        GROUP("{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\",\"symmetric\":true,\"group_size\":null}"),
        GROUP("{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"tensor\"}"),
        QUANT("\"quant_method\":\"modelopt\",\"quant_algo\":\"FP8\",\"ignore\":[\"lm_head\"]"),
        QUANT("\"quant_method\":\"fp8\",\"activation_scheme\":\"static\",\"weight_block_size\":null"),
        QUANT("\"quant_method\":\"fbgemm_fp8\",\"activation_scale_ub\":1200.0"),
    };
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        read_ok(taken[i], NULL);
#define CONFIG "config.json: quantization_config"
    refused(GROUP("{\"num_bits\":4,\"type\":\"int\",\"strategy\":\"group\",\"symmetric\":false}"), ST_EUNSUP,
            CONFIG ".config_groups.weights: '4-bit int by group, asymmetric' is not supported");
    refused(GROUP("{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\"}"), ST_EUNSUP,
            CONFIG ".config_groups.weights: '8-bit float by block' is not supported");
    refused(GROUP("{\"num_bits\":4,\"type\":\"float\",\"strategy\":\"tensor_group\"}"), ST_EUNSUP,
            CONFIG ".config_groups.weights: '4-bit float by tensor_group' is not supported");
    refused(GROUP("null"), ST_EFORMAT, CONFIG ".config_groups.weights: expected an object");
    refused(GROUP("{\"num_bits\":\"x\"}"), ST_EFORMAT,
            CONFIG ".config_groups.weights: num_bits: expected an integer");
    refused(QUANT("\"quant_method\":\"compressed-tensors\""), ST_EFORMAT,
            CONFIG ".config_groups: expected an object of groups");
    refused(QUANT("\"quant_method\":\"compressed-tensors\",\"sparsity_config\":{\"format\":\"sparse-24-bitmask\"}"), ST_EUNSUP,
            CONFIG ".sparsity_config: 'sparse-24-bitmask' is not supported");
    refused(QUANT("\"quant_method\":\"compressed-tensors\",\"transform_config\":{\"config_groups\":{}}"), ST_EUNSUP,
            CONFIG ": 'transform_config' is not supported");
    refused(QUANT("\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\""), ST_EUNSUP,
            CONFIG ".quant_algo: 'NVFP4' is not supported");
    refused(QUANT("\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]"), ST_EUNSUP,
            CONFIG ": 'weight_block_size' is not supported");
    refused(QUANT("\"quant_method\":7"), ST_EFORMAT, CONFIG ".quant_method: expected a string");
}

static void bad_values_are_named(void **state)
{
    (void)state;
    refused("{}", ST_EFORMAT, "config.json: architectures: expected an array with a class name");
    refused("[]", ST_EFORMAT, "config.json: expected an object");
    refused("{\"architectures\":[\"LlamaForCausalLM\"],\"num_hidden_layers\":2}", ST_EFORMAT,
            "config.json: hidden_size: missing");
    refused(LLAMA(",\"num_key_value_heads\":3"), ST_EFORMAT,
            "config.json: 4 query heads do not divide over 3 KV heads");
    refused(LLAMA(",\"head_dim\":15"), ST_EFORMAT, "config.json: a head size of 15 (even, 2 to 512)");
    refused(LLAMA(",\"eos_token_id\":\"x\""), ST_EFORMAT,
            "config.json: eos_token_id: expected a token id or up to 16 of them");
    refused(LLAMA(",\"eos_token_id\":[1,1.5]"), ST_EFORMAT,
            "config.json: eos_token_id: expected a token id or up to 16 of them");
    refused(LLAMA(",\"rope_scaling\":7"), ST_EFORMAT, "config.json: rope_scaling: expected an object");
    refused(LLAMA(",\"rope_scaling\":{\"rope_type\":\"llama3\",\"low_freq_factor\":4,\"high_freq_factor\":4,"
                  "\"original_max_position_embeddings\":32}"),
            ST_EFORMAT, "config.json: rope scaling: high_freq_factor 4 is not above low_freq_factor 4");
    struct hparams h;
    static const char *const wild[] = {
        LLAMA(",\"head_dim\":1e99"),
        LLAMA(",\"num_key_value_heads\":-1"),
        LLAMA(",\"num_key_value_heads\":0"),
        LLAMA(",\"max_position_embeddings\":1e12"),
        LLAMA(",\"rms_norm_eps\":\"x\""),
        LLAMA(",\"rope_theta\":-1"),
        LLAMA(",\"tie_word_embeddings\":1"),
        LLAMA(",\"partial_rotary_factor\":0"),
        "",
        "{",
        "nul",
    };
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++)
        assert_int_equal(hparams_hf(&h, str_from(wild[i]), str_from(NULL), NULL), ST_EFORMAT);
    struct err e = {0};
    assert_int_equal(hparams_hf(&h, str_from(LLAMA("")), str_from("{\"eos_token_id\":-1}"), &e), ST_EFORMAT);
    assert_string_equal(e.text,
                        "generation_config.json: eos_token_id: expected a token id or up to 16 of them");
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_transformers),
        cmocka_unit_test(every_field_is_read),
        cmocka_unit_test(both_spellings_of_scaling_mean_the_same),
        cmocka_unit_test(mistral_has_a_window_unless_it_says_null),
        cmocka_unit_test(what_is_not_carried_out_is_refused_by_name),
        cmocka_unit_test(e4m3_is_taken_and_other_quantisation_refused),
        cmocka_unit_test(bad_values_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
