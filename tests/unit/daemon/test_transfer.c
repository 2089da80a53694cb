#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "common/net/loop.h"
#include "proto/wire.h"
#include "worker/daemon/transfer.h"

enum { WAIT_MS = 10000, SIZE = 3 << 20 };

static char *folder;
static struct ha_net *net;
static struct ha_loop *loop;
static struct ha_server *server;
static struct transfer *transfer;
static char *stored; /* one artifact */
static int64_t n_stored;

static struct {
    int n;
    uint64_t tags[8];
    int codes[8];
    char sha256[65];
} results;

static void done(void *context, const struct transfer_result *result)
{
    (void)context;
    results.tags[results.n] = result->tag;
    results.codes[results.n++] = result->code;
    (void)snprintf(results.sha256, sizeof(results.sha256), "%s", result->sha256);
}

static void serve(void *context, const struct ha_server_message *frame)
{
    struct ha_wire_message *message, answer = {0};
    struct ha_buffer out;

    (void)context;
    assert_int_equal(
        ha_wire_decode(frame->data, frame->size, &ha_wire_default_limits, &message, NULL), 0);
    answer.request_id = message->request_id;
    if (message->kind == HA_WIRE_ARTIFACT_READ) {
        const struct ha_wire_artifact_read *read = &message->body.artifact_read;

        answer.kind = HA_WIRE_ARTIFACT_DATA;
        answer.body.artifact_data = (struct ha_wire_artifact_data){
            .sha256 = read->sha256,
            .offset = read->offset,
            .size = n_stored,
            .data = {.data = (uint8_t *)stored + read->offset, .size = (size_t)read->length}};
    } else {
        answer.kind = HA_WIRE_ARTIFACT_STATE;
        if (message->kind == HA_WIRE_ARTIFACT_CHUNK) {
            const struct ha_wire_artifact_chunk *chunk = &message->body.artifact_chunk;

            memcpy(stored + chunk->offset, chunk->data.data, chunk->data.size);
            n_stored = chunk->offset + (int64_t)chunk->data.size;
        }
        answer.body.artifact_state = (struct ha_wire_artifact_state){
            .sha256 = message->body.artifact_open.sha256,
            .have = n_stored,
            .complete = n_stored == message->body.artifact_open.size};
    }
    ha_buffer_init(&out, 0);
    assert_int_equal(ha_wire_encode(&answer, &out, NULL), 0);
    assert_int_equal(ha_server_send(server, frame->peer, out.data, out.size), 0);
    ha_buffer_clear(&out);
    ha_wire_message_destroy(message);
}

static int set_up(void **state)
{
    char name[] = "/tmp/ha-test-transfer-XXXXXX";

    (void)state;
    folder = ha_strdup(mkdtemp(name));
    memset(&results, 0, sizeof(results));
    stored = ha_calloc(SIZE, 1);
    n_stored = 0;
    server = NULL;
    transfer = NULL;
    return ha_net_create(&net, NULL) < 0 || ha_loop_create(&loop, NULL) < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    transfer_destroy(transfer);
    ha_server_destroy(server);
    ha_loop_destroy(loop);
    ha_net_destroy(net);
    ha_path_remove_tree(folder, NULL);
    free(folder);
    free(stored);
    return 0;
}

static void run_until(int n)
{
    int64_t deadline = ha_clock_boot_ms() + WAIT_MS;

    while (results.n < n) {
        assert_int_equal(ha_loop_turn(loop, 50, NULL), 0);
        assert_true(ha_clock_boot_ms() < deadline);
    }
}

static void moves_files_both_ways(void **state)
{
    const struct ha_server_handlers handlers = {.message = serve};
    char *endpoint = ha_format("ipc://%s/s", folder);
    char *path = ha_path_join(folder, "a"), *copy = ha_path_join(folder, "b");
    char *content = malloc(SIZE), *again;
    struct transfer_options options = {.net = net, .loop = loop, .done = done, .silence_ms = 300};
    struct ha_error err = {0};
    size_t size;

    (void)state;
    for (int i = 0; i < SIZE; i++)
        content[i] = (char)(i * 13 + i / 4096);
    assert_int_equal(ha_file_write(path, content, SIZE, 0644, NULL), 0);
    assert_int_equal(transfer_create(&options, &transfer, &err), 0);
    /* Orders are kept until there is an endpoint, and until somebody answers. */
    assert_int_equal(transfer_upload(transfer, 11, path), 0);
    assert_int_equal(transfer_upload(transfer, 12, "/no/such/file"), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ha_loop_turn(loop, 10, NULL), 0);
    assert_int_equal(results.n, 0);
    assert_int_equal(transfer_connect(transfer, endpoint), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ha_loop_turn(loop, 10, NULL), 0);
    assert_int_equal(ha_server_create(net, loop, endpoint, NULL, &handlers, &server, &err), 0);
    run_until(2);
    assert_int_equal(results.tags[0], 11);
    assert_int_equal(results.codes[0], 0);
    assert_memory_equal(stored, content, SIZE);
    assert_int_equal(results.tags[1], 12);
    assert_true(results.codes[1] < 0);

    {
        uint8_t digest[HA_SHA256_BYTES];
        char hex[HA_SHA256_HEX_BYTES];

        ha_sha256(content, SIZE, digest);
        assert_int_equal(transfer_download(transfer, 13, ha_sha256_hex(digest, hex), SIZE, copy),
                         0);
    }
    run_until(3);
    assert_int_equal(results.tags[2], 13);
    assert_int_equal(results.codes[2], 0);
    assert_int_equal(ha_file_read(copy, SIZE, &again, &size, NULL), 0);
    assert_memory_equal(again, content, SIZE);
    free(again);
    free(content);
    free(endpoint);
    free(path);
    free(copy);
}

static void stops_with_orders_open(void **state)
{
    struct transfer_options options = {.net = net, .loop = loop, .done = done};
    char *endpoint = ha_format("ipc://%s/s", folder), *copy = ha_path_join(folder, "b");

    (void)state;
    assert_int_equal(transfer_create(&options, &transfer, NULL), 0);
    assert_int_equal(transfer_connect(transfer, endpoint), 0);
    assert_int_equal(
        transfer_download(transfer, 1,
                          "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 5,
                          copy),
        0);
    assert_int_equal(transfer_upload(transfer, 2, "/proc/self/status"), 0);
    free(endpoint);
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(moves_files_both_ways, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stops_with_orders_open, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
