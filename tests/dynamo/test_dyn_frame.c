/* Frames on the wire: the documented bytes, every split of them, and lengths that lie. */
#include "dyn_frame.h"
#include "dynamo/request_frame.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PATH "fb44fbb9329174b0/dynamo/backend/generate"
#define HEADER "{\"request-id\":\"8d261cf9-da6c-405e-b8b5-99329f9d728e\",\"x-endpoint-path\":\"" PATH "\"}"
#define CONTROL                                                                                              \
    "{\"id\":\"8d261cf9\",\"request_type\":\"single_in\",\"response_type\":\"many_out\",\"payload_codec\":"  \
    "\"msgpack\","                                                                                           \
    "\"connection_info\":{\"transport\":\"tcp_server\",\"info\":\"{\\\"address\\\":\\\"127.0.0.1:37405\\\"," \
    "\\\"subject\\\""                                                                                        \
    ":\\\"3d3e7bf6\\\",\\\"context\\\":\\\"8d261cf9\\\",\\\"stream_type\\\":\\\"response\\\"}\"}}"

static void put_frame(struct buf *b, const char *path, struct str control, struct str body)
{
    put_request_frame(b, path, HEADER, control, body);
}

static void a_frame_is_seen_at_its_last_byte_and_not_before(void **state)
{
    struct buf b = {0};
    struct dyn_frame f;
    struct dyn_parts parts;
    (void)state;
    put_frame(&b, PATH, STR_LIT(CONTROL), STR_LIT("\x80"));
    size_t whole = b.n;
    put_frame(&b, PATH, STR_LIT("{}"), STR_LIT(""));
    for (size_t n = 0; n < whole; n++) {
        char *exact = mem_dup(b.p, n); /* the sanitizer sees a look beyond */
        assert_int_equal(dyn_frame_parse(&f, exact, n), ST_AGAIN);
        mem_free(exact);
    }
    for (size_t n = whole; n <= b.n; n++) {
        assert_int_equal(dyn_frame_parse(&f, b.p, n), ST_OK);
        assert_int_equal(f.bytes, whole);
        assert_true(str_eqz(f.path, PATH) && str_eqz(f.header, HEADER));
    }
    assert_int_equal(dyn_parts_parse(&parts, f.payload.p, f.payload.n, DYN_HEADER_MAX, DYN_FRAME_MAX), ST_OK);
    assert_int_equal(parts.bytes, f.payload.n);
    assert_true(str_eqz(parts.header, CONTROL) && str_eqz(parts.data, "\x80"));
    buf_fini(&b);
}

static void a_length_beyond_its_bound_is_no_frame(void **state)
{
    struct dyn_frame f;
    struct dyn_parts parts;
    char path[2 + DYN_PATH_MAX + 2 + 4] = {0};
    (void)state;
    assert_int_equal(dyn_frame_parse(&f, "\x04\x01", 2), ST_EFORMAT);         /* path of 1025 */
    assert_int_equal(dyn_frame_parse(&f, "\x00\x00\x40\x01", 4), ST_EFORMAT); /* header of 16385 */
    assert_int_equal(dyn_frame_parse(&f, "\0\0\0\0\x02\x00\x00\x01", 8), ST_EFORMAT);
    assert_int_equal(dyn_frame_parse(&f, "\0\0\0\0\x02\x00\x00\x00", 8), ST_AGAIN); /* 32 MiB exactly */
    path[0] = 4;
    assert_int_equal(dyn_frame_parse(&f, path, 2 + DYN_PATH_MAX + 2), ST_AGAIN);
    assert_int_equal(dyn_frame_parse(&f, path, sizeof path), ST_OK);
    static const char lies[24] = {0,          0,          0,          0,          0,          0,
                                  0,          0,          (char)0xff, (char)0xff, (char)0xff, (char)0xff,
                                  (char)0xff, (char)0xff, (char)0xff, (char)0xff};
    assert_int_equal(dyn_parts_parse(&parts, lies, 24, 100, 100), ST_EFORMAT);
    assert_int_equal(dyn_parts_parse(&parts, lies + 8, 16, 100, 100), ST_AGAIN);
}

static void acks_have_a_length_and_a_text(void **state)
{
    struct buf b = {0};
    (void)state;
    dyn_frame_put_ack(&b, STR_LIT(""));
    dyn_frame_put_ack(&b, STR_LIT("Server overloaded: x"));
    assert_int_equal(b.n, 4 + 4 + 20);
    assert_memory_equal(b.p, "\0\0\0\0\0\0\0\x14Server overloaded: x", b.n);
    buf_fini(&b);
}

static void control_messages_say_where_and_how(void **state)
{
    struct dyn_control c;
    struct err e = {0};
    (void)state;
    assert_int_equal(dyn_control_parse(&c, STR_LIT(CONTROL), &e), ST_OK);
    assert_string_equal(c.id, "8d261cf9");
    assert_string_equal(c.subject, "3d3e7bf6");
    assert_string_equal(c.address, "127.0.0.1:37405");
    assert_int_equal(c.codec, DYN_CODEC_MSGPACK);
    /* no codec is JSON */
    assert_int_equal(
        dyn_control_parse(&c,
                          STR_LIT("{\"id\":\"a\",\"connection_info\":{\"transport\":\"tcp_server\",\"info\":"
                                  "\"{\\\"address\\\":\\\"[::1]:1\\\",\\\"subject\\\":\\\"s\\\"}\"}}"),
                          &e),
        ST_OK);
    assert_int_equal(c.codec, DYN_CODEC_JSON);
}

static void another_transport_is_refused_in_words(void **state)
{
    struct dyn_control c;
    struct err e = {0};
    (void)state;
    assert_int_equal(
        dyn_control_parse(
            &c,
            STR_LIT(
                "{\"id\":\"a\",\"connection_info\":{\"transport\":\"tcp_response_mux_v1\",\"info\":\"{}\"}}"),
            &e),
        ST_EUNSUP);
    assert_non_null(strstr(e.text, "tcp_response_mux_v1"));
    assert_int_equal(dyn_control_parse(&c,
                                       STR_LIT("{\"id\":\"a\",\"payload_codec\":\"cbor\",\"connection_info\":"
                                               "{\"transport\":\"tcp_server\",\"info\":\"{}\"}}"),
                                       &e),
                     ST_EUNSUP);
#define AROUND(info) "{\"id\":\"a\",\"connection_info\":{\"transport\":\"tcp_server\"" info "}}"
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "{\"id\":5}",
                                      "{\"id\":\"a\"}",
                                      AROUND(""),
                                      AROUND(",\"info\":\"{\""),
                                      AROUND(",\"info\":\"{\\\"address\\\":\\\"1:2\\\"}\"")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(dyn_control_parse(&c, str_from(bad[i]), &e), ST_EFORMAT);
}

/* As captured from the reference worker. */
static void a_response_is_byte_for_byte_the_reference_s(void **state)
{
    struct buf b = {0};
    (void)state;
    dyn_frame_put_handshake(&b, "3d3e7bf6-d953-41e4-acca-f62ab3aff7cf");
    static const char handshake[] =
        "\0\0\0\0\0\0\0\x4b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        "{\"subject\":\"3d3e7bf6-d953-41e4-acca-f62ab3aff7cf\",\"stream_type\":\"response\"}";
    assert_int_equal(b.n, sizeof handshake - 1);
    assert_memory_equal(b.p, handshake, b.n);
    buf_reset(&b);
    dyn_frame_put_prologue(&b);
    assert_int_equal(b.n, 38);
    assert_memory_equal(b.p, "\0\0\0\0\0\0\0\x0e\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0{\"error\":null}", 38);
    buf_reset(&b);
    static const char tree[] = "\x81\xa8TreeDump\x83\xa6"
                               "events\x90\xad"
                               "last_event_id\0\xab"
                               "reset_scope\xa3"
                               "all";
    dyn_frame_put_item(&b, DYN_CODEC_MSGPACK, STR_LIT(tree));
    assert_int_equal(b.n, 96);
    assert_memory_equal(b.p,
                        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x48\0\0\0\0\0\0\0\0\x82\xa4"
                        "data",
                        24 + 6);
    assert_memory_equal(b.p + 30, tree, sizeof tree - 1);
    assert_memory_equal(b.p + 96 - 16,
                        "\xae"
                        "complete_final\xc2",
                        16);
    buf_reset(&b);
    dyn_frame_put_final(&b, DYN_CODEC_MSGPACK);
    assert_int_equal(b.n, 41 + 34);
    assert_memory_equal(b.p,
                        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x11\0\0\0\0\0\0\0\0\x81\xae"
                        "complete_final\xc3",
                        41);
    assert_memory_equal(b.p + 41, "\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\"sentinel\"", 34);
    buf_reset(&b);
    dyn_frame_put_item(&b, DYN_CODEC_JSON,
                       STR_LIT("\x81\xa1"
                               "a\x01"));
    assert_memory_equal(b.p + 24, "{\"data\":{\"a\":1},\"complete_final\":false}", b.n - 24);
    assert_int_equal(b.p[15], b.n - 24);
    buf_fini(&b);
}

static void stop_and_kill_end_a_stream_and_nothing_else(void **state)
{
    (void)state;
    assert_true(dyn_frame_ends(STR_LIT("\"kill\"")));
    assert_true(dyn_frame_ends(STR_LIT("\"stop\"")));
    assert_false(dyn_frame_ends(STR_LIT("kill")));
    assert_false(dyn_frame_ends(STR_LIT("\"sentinel\"")));
    assert_false(dyn_frame_ends(STR_LIT("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_is_seen_at_its_last_byte_and_not_before),
        cmocka_unit_test(a_length_beyond_its_bound_is_no_frame),
        cmocka_unit_test(acks_have_a_length_and_a_text),
        cmocka_unit_test(control_messages_say_where_and_how),
        cmocka_unit_test(another_transport_is_refused_in_words),
        cmocka_unit_test(a_response_is_byte_for_byte_the_reference_s),
        cmocka_unit_test(stop_and_kill_end_a_stream_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
