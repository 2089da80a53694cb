/* The artifact socket: upload and download through its thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
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
    bool late; /* rows wait */
    char snapshot[65];
};

enum { LIMIT = 1000000 };

static void on_snapshot(void *context, int64_t number, const char *sha256, int64_t size,
                        const struct ha_error *why);

static void on_stored(void *context, const char *sha256, int64_t size)
{
    struct bench *b = context;

    (void)size;
    b->stored++;
    if (!b->late)
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
                                                               .max_artifact_bytes = LIMIT,
                                                               .stored = on_stored,
                                                               .snapshot = on_snapshot,
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

static void post(struct bench *b, struct ha_wire_message *message)
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
}

static void wait_for_reply(struct bench *b)
{
    for (int i = 0; i < 500 && !b->reply; i++)
        assert_int_equal(ha_loop_turn(b->loop, 20, NULL), 0);
    assert_non_null(b->reply);
}

static const struct ha_wire_message *call(struct bench *b, struct ha_wire_message *message,
                                          enum ha_wire_body expected)
{
    post(b, message);
    wait_for_reply(b);
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

/* Every kind of message there is, for every role. */
static void keys_bound_what_a_peer_may_do(void **state)
{
    (void)state;
    for (int kind = 0; kind < 128; kind++) {
        bool reads = kind == HA_WIRE_ARTIFACT_READ;
        bool writes = kind == HA_WIRE_ARTIFACT_OPEN || kind == HA_WIRE_ARTIFACT_CHUNK;
        const bool want[] = {[HA_NET_ROLE_NONE] = false,
                             [HA_NET_ROLE_READ] = reads,
                             [HA_NET_ROLE_SUBMIT] = reads || writes,
                             [HA_NET_ROLE_WORKER] = reads || writes,
                             [HA_NET_ROLE_JUDGE] = false,
                             [HA_NET_ROLE_ADMIN] = reads || writes};

        for (int role = HA_NET_ROLE_NONE; role <= HA_NET_ROLE_ADMIN; role++)
            assert_int_equal(ha_files_may((enum ha_net_role)role, (enum ha_wire_body)kind),
                             want[role]);
    }
}

static void a_file_that_is_too_large_is_refused(void **state)
{
    struct bench *b = *state;
    char hex[HA_SHA256_HEX_BYTES];
    struct ha_wire_message open = {.kind = HA_WIRE_ARTIFACT_OPEN,
                                   .body.artifact_open = {.sha256 = hex, .size = LIMIT + 1}};
    struct ha_wire_message chunk = {
        .kind = HA_WIRE_ARTIFACT_CHUNK,
        .body.artifact_chunk = {.sha256 = hex, .size = LIMIT + 1, .data = {(uint8_t *)hex, 5}}};
    const struct ha_wire_message *reply;

    memset(hex, 'a', sizeof hex - 1);
    hex[sizeof hex - 1] = '\0';
    reply = call(b, &open, HA_WIRE_ERROR);
    assert_int_equal(reply->body.error.code, EFBIG);
    assert_non_null(strstr(reply->body.error.text, "max_artifact_size"));
    reply = call(b, &chunk, HA_WIRE_ERROR);
    assert_int_equal(reply->body.error.code, EFBIG);
    open.body.artifact_open.size = LIMIT;
    call(b, &open, HA_WIRE_ARTIFACT_STATE);
}

static void on_snapshot(void *context, int64_t number, const char *sha256, int64_t size,
                        const struct ha_error *why)
{
    struct bench *b = context;

    assert_null(why);
    assert_int_equal(number, 3);
    assert_int_equal(size, 5);
    snprintf(b->snapshot, sizeof b->snapshot, "%s", sha256);
}

/* A copy of the database is read like an artifact, until it is dropped. */
static void a_snapshot_is_adopted(void **state)
{
    struct bench *b = *state;
    char path[128];
    struct ha_wire_message read = {.kind = HA_WIRE_ARTIFACT_READ,
                                   .body.artifact_read = {.sha256 = b->snapshot, .length = 100}};
    const struct ha_wire_message *reply;
    FILE *file;

    snprintf(path, sizeof path, "%s/artifacts/snapshot/3.db", b->dir);
    file = fopen(path, "we");
    assert_non_null(file);
    fputs("whole", file);
    fclose(file);
    assert_int_equal(ha_files_adopt(b->files, 3, path), 0);
    for (int i = 0; i < 500 && !b->snapshot[0]; i++)
        assert_int_equal(ha_loop_turn(b->loop, 20, NULL), 0);
    reply = call(b, &read, HA_WIRE_ARTIFACT_DATA);
    assert_int_equal(reply->body.artifact_data.size, 5);
    assert_memory_equal(reply->body.artifact_data.data.data, "whole", 5);
    assert_false(ha_path_exists(path));
    ha_files_drop_snapshot(b->files, b->snapshot);
    for (int i = 0; i < 100 && !reply->body.artifact_data.error[0]; i++)
        reply = call(b, &read, HA_WIRE_ARTIFACT_DATA); /* the thread hears of it meanwhile */
    assert_non_null(strstr(reply->body.artifact_data.error, "there is no artifact"));
}

/* An orphan's file goes; not while somebody is told that all of it is there. */
static void an_orphan_that_comes_again_stays(void **state)
{
    struct bench *b = *state;
    char hex[HA_SHA256_HEX_BYTES], path[256];
    struct ha_wire_message open = {.kind = HA_WIRE_ARTIFACT_OPEN,
                                   .body.artifact_open = {.sha256 = hex, .size = 12}};

    up_and_down(state);
    memcpy(hex, b->reply->body.artifact_data.sha256, sizeof hex);
    snprintf(path, sizeof path, "%s/artifacts/%.2s/%s", b->dir, hex, hex);
    b->late = true; /* its row is not made yet */
    b->stored = 0;
    post(b, &open);
    for (int i = 0; i < 500 && b->stored == 0; i++)
        assert_int_equal(ha_loop_turn(b->loop, 20, NULL), 0);
    ha_files_orphan(b->files, hex); /* of the row before */
    ha_files_committed(b->files, hex);
    wait_for_reply(b);
    assert_true(b->reply->body.artifact_state.complete);
    assert_true(ha_path_exists(path));
    ha_files_orphan(b->files, hex); /* nobody waits now */
    for (int i = 0; i < 500 && ha_path_exists(path); i++)
        assert_int_equal(ha_loop_turn(b->loop, 10, NULL), 0);
    assert_false(ha_path_exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(up_and_down, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_there_is_said, setup, teardown),
        cmocka_unit_test(keys_bound_what_a_peer_may_do),
        cmocka_unit_test_setup_teardown(a_file_that_is_too_large_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_snapshot_is_adopted, setup, teardown),
        cmocka_unit_test_setup_teardown(an_orphan_that_comes_again_stays, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
