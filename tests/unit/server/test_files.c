/* The artifact socket: upload and download through its thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/hash.h"
#include "common/base/path.h"
#include "common/net/loop.h"
#include "coordinator/server/files.h"
#include "proto/wire.h"

struct bench {
    char dir[64];
    struct ha_net *net;
    struct ha_loop *loop;
    struct ha_files *files;
    struct ha_client *client;
    struct ha_wire_message *reply;
    int stored;
};

static void on_stored(void *context, const char *sha256, int64_t size)
{
    struct bench *b = context;

    (void)size;
    b->stored++;
    ha_files_committed(b->files, sha256);
}

static void on_fatal(void *context, const char *why)
{
    (void)context;
    fail_msg("%s", why);
}

static void on_reply(void *context, const void *data, size_t size)
{
    struct bench *b = context;

    ha_wire_message_destroy(b->reply);
    assert_int_equal(ha_wire_decode(data, size, &ha_wire_default_limits, &b->reply, NULL), 0);
}

static int setup(void **state)
{
    static struct bench b;
    char endpoint[96], dir[96];

    memset(&b, 0, sizeof b);
    snprintf(b.dir, sizeof b.dir, "/tmp/ha-test-XXXXXX");
    assert_non_null(mkdtemp(b.dir));
    snprintf(endpoint, sizeof endpoint, "ipc://%s/files", b.dir);
    snprintf(dir, sizeof dir, "%s/artifacts", b.dir);
    assert_int_equal(ha_net_create(&b.net, NULL), 0);
    assert_int_equal(ha_loop_create(&b.loop, NULL), 0);
    assert_int_equal(ha_files_start(&(struct ha_files_options){.net = b.net,
                                                               .main_loop = b.loop,
                                                               .endpoint = endpoint,
                                                               .dir = dir,
                                                               .stored = on_stored,
                                                               .fatal = on_fatal,
                                                               .context = &b},
                                    &b.files, NULL),
                     0);
    assert_int_equal(ha_client_create(b.net, b.loop, endpoint, NULL, on_reply, &b, &b.client, NULL),
                     0);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    ha_client_destroy(b->client);
    ha_files_stop(b->files);
    ha_loop_destroy(b->loop);
    ha_net_destroy(b->net);
    ha_wire_message_destroy(b->reply);
    return ha_path_remove_tree(b->dir, NULL);
}

static const struct ha_wire_message *call(struct bench *b, struct ha_wire_message *message,
                                          enum ha_wire_body expected)
{
    struct ha_buffer frame;

    ha_wire_message_destroy(b->reply);
    b->reply = NULL;
    message->protocol = HA_WIRE_PROTOCOL;
    message->request_id = 7;
    ha_buffer_init(&frame, 0);
    assert_int_equal(ha_wire_encode(message, &frame, NULL), 0);
    assert_int_equal(ha_client_send(b->client, frame.data, frame.size), 0);
    ha_buffer_clear(&frame);
    for (int i = 0; i < 500 && !b->reply; i++)
        assert_int_equal(ha_loop_turn(b->loop, 20, NULL), 0);
    assert_non_null(b->reply);
    assert_int_equal(b->reply->request_id, 7);
    assert_int_equal(b->reply->kind, expected);
    return b->reply;
}

static void up_and_down(void **state)
{
    static const char text[] = "hello, world";
    struct bench *b = *state;
    uint8_t digest[HA_SHA256_BYTES];
    char hex[HA_SHA256_HEX_BYTES];
    struct ha_wire_message open = {.kind = HA_WIRE_ARTIFACT_OPEN,
                                   .body.artifact_open = {.sha256 = hex, .size = 12}};
    struct ha_wire_message chunk = {
        .kind = HA_WIRE_ARTIFACT_CHUNK,
        .body.artifact_chunk = {.sha256 = hex, .size = 12, .data = {(const uint8_t *)text, 5}}};
    struct ha_wire_message read = {.kind = HA_WIRE_ARTIFACT_READ,
                                   .body.artifact_read = {.sha256 = hex, .length = 100}};
    const struct ha_wire_message *reply;

    ha_sha256(text, 12, digest);
    ha_sha256_hex(digest, hex);
    reply = call(b, &open, HA_WIRE_ARTIFACT_STATE);
    assert_int_equal(reply->body.artifact_state.have, 0);
    reply = call(b, &chunk, HA_WIRE_ARTIFACT_STATE);
    assert_int_equal(reply->body.artifact_state.have, 5);
    assert_false(reply->body.artifact_state.complete);
    assert_int_equal(b->stored, 0);
    chunk.body.artifact_chunk.offset = 5;
    chunk.body.artifact_chunk.data = (struct ha_wire_bytes){(const uint8_t *)text + 5, 7};
    reply = call(b, &chunk, HA_WIRE_ARTIFACT_STATE);
    assert_true(reply->body.artifact_state.complete); /* only after the row */
    assert_int_equal(b->stored, 1);
    reply = call(b, &open, HA_WIRE_ARTIFACT_STATE);
    assert_true(reply->body.artifact_state.complete);
    reply = call(b, &read, HA_WIRE_ARTIFACT_DATA);
    assert_int_equal(reply->body.artifact_data.size, 12);
    assert_memory_equal(reply->body.artifact_data.data.data, text, 12);
}

static void what_is_not_there_is_said(void **state)
{
    struct bench *b = *state;
    char hex[HA_SHA256_HEX_BYTES];
    struct ha_wire_message read = {.kind = HA_WIRE_ARTIFACT_READ,
                                   .body.artifact_read = {.sha256 = hex, .length = 100}};
    struct ha_wire_message list = {.kind = HA_WIRE_LIST_SWEEPS};
    const struct ha_wire_message *reply;

    memset(hex, 'a', sizeof hex - 1);
    hex[sizeof hex - 1] = '\0';
    reply = call(b, &read, HA_WIRE_ARTIFACT_DATA);
    assert_non_null(strstr(reply->body.artifact_data.error, "there is no artifact"));
    call(b, &list, HA_WIRE_ERROR);
    hex[0] = '\0';
    call(b, &read, HA_WIRE_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(up_and_down, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_there_is_said, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
