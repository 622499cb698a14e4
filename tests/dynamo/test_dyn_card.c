#define _GNU_SOURCE
/* Goal: records and cards say what Dynamo's own workers say, byte for byte where order and form are ours to choose.
 * Method: goldens written from the documented form. */
#include "dyn_card.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const struct dyn_self self = {.name_space = "dynamo",
                                     .component = "backend",
                                     .endpoint = "generate",
                                     .instance = 8936161152039926308u,
                                     .address = "127.0.0.1:33547",
                                     .device = "cuda"};

#define INSTANCE(name)                                                               \
    "\"component\":\"backend\",\"endpoint\":\"" name                                 \
    "\",\"namespace\":\"dynamo\",\"instance_id\":8936161152039926308,"               \
    "\"transport\":{\"tcp\":\"127.0.0.1:33547/7c039f38d2fc3a24/dynamo/backend/" name \
    "\"},\"device_type\":\"cuda\","                                                  \
    "\"request_plane_codec\":\"msgpack\""
#define ENDPOINT "{\"namespace\":\"dynamo\",\"component\":\"backend\",\"name\":\"generate\"}"
#define SCOPE "\"scope\":{\"kind\":\"endpoint\",\"endpoint\":" ENDPOINT "},\"topic\":\"kv-events\""

static void assert_record(struct dyn_record *r, enum dyn_bucket bucket, const char *key, const char *value)
{
    assert_int_equal(r->bucket, bucket);
    assert_string_equal(r->key.p, key);
    assert_string_equal(r->value.p, value);
    buf_fini(&r->key);
    buf_fini(&r->value);
    assert_int_equal(mem_live(), 0);
}

static void instances_name_themselves_twice(void **state)
{
    (void)state;
    struct dyn_record r;
    dyn_record_instance(&r, &self, NULL);
    assert_record(&r, DYN_INSTANCES, "dynamo/backend/generate/7c039f38d2fc3a24",
                  "{\"type\":\"Endpoint\"," INSTANCE("generate") "}");
    dyn_record_instance(&r, &self, "other");
    assert_record(&r, DYN_INSTANCES, "dynamo/backend/other/7c039f38d2fc3a24",
                  "{\"type\":\"Endpoint\"," INSTANCE("other") "}");
}

static void event_records_agree_with_their_key(void **state)
{
    (void)state;
    struct dyn_record r;
    const char *key = "namespace/dynamo/component/backend/endpoint/generate/topic/kv-events/51a7d00332e37";
    dyn_record_event_channel(&r, &self, "kv-events", 1436499060141623, "tcp://127.0.0.1:35743");
    assert_record(&r, DYN_EVENT_CHANNELS, key,
                  "{\"type\":\"EventChannel\"," SCOPE ",\"instance_id\":1436499060141623,"
                  "\"transport\":{\"kind\":\"Zmq\",\"config\":{\"endpoint\":\"tcp://127.0.0.1:35743\"}}}");
    dyn_record_event_source(&r, &self, "kv-events", 1436499060141623, "worker_kv_query_source_51a7d00332e37");
    assert_record(
        &r, DYN_EVENT_SOURCES, key,
        "{\"type\":\"EventSource\"," SCOPE
        ",\"publisher_id\":1436499060141623,\"metadata\":{\"kv_state_endpoint\":" ENDPOINT
        ",\"worker\":{\"worker_id\":8936161152039926308,\"dp_rank\":0},\"publisher_id\":1436499060141623,"
        "\"recovery_target\":{" INSTANCE("worker_kv_query_source_51a7d00332e37") "}}}");
    struct dyn_self dotted = self;
    dotted.name_space = "a.b_c-d";
    dyn_record_event_channel(&r, &dotted, "t", 1, "x");
    assert_memory_equal(r.key.p, "namespace/a%2Eb_c-d/component/", 30);
    buf_fini(&r.key);
    buf_fini(&r.value);
}

#define ZEROS "0000000000000000000000000000000000000000000000000000000000000000"
#define FILE_JSON(name, n) \
    "{\"path\":\"http://h:1/m/" name "\",\"checksum\":\"blake3:" ZEROS "\",\"size\":" n "}"

static const char golden_card[] =
    "{\"type\":\"Model\",\"namespace\":\"dynamo\",\"component\":\"backend\",\"endpoint\":\"generate\","
    "\"instance_id\":8936161152039926308,\"card_json\":{\"display_name\":\"My "
    "Model.Q4\",\"slug\":\"my-model-q4\","
    "\"source_path\":\"My Model.Q4\",\"model_info\":{\"hf_config_json\":" FILE_JSON(
        "config.json",
        "1") "},\"tokenizer\":{\"hf_tokenizer_json\":" FILE_JSON("tokenizer.json",
                                                                 "2") "},\"prompt_formatter\":{\"hf_"
                                                                      "tokenizer_config_"
                                                                      "json\":" FILE_JSON(
                                                                          "tokenizer_"
                                                                          "config.json",
                                                                          "3") "},\"chat_"
                                                                               "template_"
                                                                               "file\":{"
                                                                               "\"hf_"
                                                                               "chat_"
                                                                               "template"
                                                                               "\":{\"is_"
                                                                               "custom\":"
                                                                               "true,"
                                                                               "\"file\""
                                                                               ":" FILE_JSON(
                                                                                   "chat_template.jinja",
                                                                                   "0") "}},"
                                                                                        "\"architectural_"
                                                                                        "max_context_"
                                                                                        "length\":8192,"
                                                                                        "\"context_"
                                                                                        "length\":4096,"
                                                                                        "\"kv_cache_"
                                                                                        "block_size\":16,"
                                                                                        "\"migration_"
                                                                                        "limit\":3,"
                                                                                        "\"model_type\":"
                                                                                        "\"Chat | "
                                                                                        "Completions\","
                                                                                        "\"model_input\":"
                                                                                        "\"Tokens\","
                                                                                        "\"worker_type\":"
                                                                                        "\"aggregated\","
                                                                                        "\"needs\":[],"
                                                                                        "\"runtime_"
                                                                                        "config\":{"
                                                                                        "\"context_"
                                                                                        "length\":4096,"
                                                                                        "\"total_kv_"
                                                                                        "blocks\":100,"
                                                                                        "\"max_num_"
                                                                                        "seqs\":8,\"max_"
                                                                                        "num_batched_"
                                                                                        "tokens\":512,"
                                                                                        "\"tool_call_"
                                                                                        "parser\":"
                                                                                        "\"hermes\","
                                                                                        "\"reasoning_"
                                                                                        "parser\":null,"
                                                                                        "\"data_parallel_"
                                                                                        "start_rank\":0,"
                                                                                        "\"data_parallel_"
                                                                                        "size\":1,"
                                                                                        "\"enable_local_"
                                                                                        "indexer\":true,"
                                                                                        "\"kv_event_"
                                                                                        "publishing_"
                                                                                        "enabled\":true}}"
                                                                                        "}";

static void cards_say_what_a_frontend_needs(void **state)
{
    (void)state;
    char path[] = "/x";
    struct dyn_files files = {{{.path = path, .size = 1},
                               {.path = path, .size = 2},
                               {.path = path, .size = 3},
                               {0},
                               {.path = path}}};
    const struct dyn_card card = {.name = "My Model.Q4",
                                  .files = &files,
                                  .base_url = "http://h:1/m",
                                  .chat = true,
                                  .context_max = 8192,
                                  .context_length = 4096,
                                  .block_tokens = 16,
                                  .n_blocks = 100,
                                  .max_num_seqs = 8,
                                  .max_num_batched_tokens = 512,
                                  .migration_limit = 3,
                                  .kv_events = true,
                                  .tool_parser = "hermes"};
    struct dyn_record r;
    dyn_card_record(&r, &self, &card);
    assert_record(&r, DYN_CARDS, "dynamo/backend/generate/7c039f38d2fc3a24", golden_card);
}

static void lost_memory_shows_in_the_record(void **state)
{
    (void)state;
    struct dyn_record r;
    dyn_record_event_source(&r, &self, "kv-events", 1, "q");
    size_t key = r.key.n, value = r.value.n;
    buf_fini(&r.key);
    buf_fini(&r.value);
    for (uint64_t n = 1; n < 20; n++) {
        mem_fail_after(n);
        dyn_record_event_source(&r, &self, "kv-events", 1, "q");
        mem_fail_after(0);
        assert_true(r.key.failed || r.value.failed || (r.key.n == key && r.value.n == value));
        buf_fini(&r.key);
        buf_fini(&r.value);
    }
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instances_name_themselves_twice),
        cmocka_unit_test(event_records_agree_with_their_key),
        cmocka_unit_test(cards_say_what_a_frontend_needs),
        cmocka_unit_test(lost_memory_shows_in_the_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
