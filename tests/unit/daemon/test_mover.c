#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/base/path.h"
#include "common/io/file.h"
#include "worker/daemon/mover.h"

enum { SILENCE_MS = 1000, SIZE = 4 * (1 << 20) + 777, QUEUE = 64 };

static char *folder, *path, *other;
static uint8_t *content;
static char sha256[HA_SHA256_HEX_BYTES];

/* A store that keeps one artifact, behind a network that may lose and repeat. */
static struct {
    uint8_t *bytes;
    int64_t have;
    int fail;      /* so many answers are errors */
    bool complete; /* told only after being asked again */
    bool slow;
    int loss; /* every so many messages are lost; 0: none */
    uint32_t seed;
    uint64_t next_request;
    struct ha_wire_message *queue[QUEUE];
    int n_queue, most_queued;
} store;

static uint32_t dice(uint32_t sides)
{
    store.seed = store.seed * 1664525 + 1013904223;
    return (store.seed >> 16) % sides;
}

static int set_up(void **state)
{
    char name[] = "/tmp/ha-test-mover-XXXXXX";
    uint8_t digest[HA_SHA256_BYTES];

    (void)state;
    folder = ha_strdup(mkdtemp(name));
    path = ha_path_join(folder, "file");
    other = ha_path_join(folder, "copy");
    content = malloc(SIZE);
    for (int i = 0; i < SIZE; i++)
        content[i] = (uint8_t)(i * 7 + i / 1000);
    ha_sha256(content, SIZE, digest);
    ha_sha256_hex(digest, sha256);
    memset(&store, 0, sizeof(store));
    store.next_request = 1;
    store.bytes = ha_calloc(SIZE, 1);
    return ha_file_write(path, content, SIZE, 0644, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    while (store.n_queue > 0)
        ha_wire_message_destroy(store.queue[--store.n_queue]);
    ha_path_remove_tree(folder, NULL);
    free(folder);
    free(path);
    free(other);
    free(content);
    free(store.bytes);
    return 0;
}

static uint64_t send_message(void *context, struct ha_wire_message *message)
{
    (void)context;
    message->request_id = store.next_request++;
    if (store.n_queue == QUEUE)
        return 0;
    if (!store.loss || dice((uint32_t)store.loss) != 0)
        assert_int_equal(ha_wire_copy(message, &store.queue[store.n_queue++], NULL, NULL), 0);
    if (store.n_queue > store.most_queued)
        store.most_queued = store.n_queue;
    return message->request_id;
}

static const struct mover_link link_to_store = {.send = send_message, .silence_ms = SILENCE_MS};

/* Answer the oldest message; false when none is waiting or the answer is lost. */
static bool answer(struct ha_wire_message *ret_answer)
{
    struct ha_wire_message *message;
    const struct ha_wire_artifact_chunk *chunk;
    struct ha_wire_artifact_state *state = &ret_answer->body.artifact_state;
    struct ha_wire_artifact_data *data = &ret_answer->body.artifact_data;

    if (store.n_queue == 0)
        return false;
    message = store.queue[0];
    memmove(store.queue, store.queue + 1, (size_t)--store.n_queue * sizeof(store.queue[0]));
    memset(ret_answer, 0, sizeof(*ret_answer));
    ret_answer->request_id = message->request_id;
    if (message->kind == HA_WIRE_ARTIFACT_READ) {
        const struct ha_wire_artifact_read *read = &message->body.artifact_read;

        ret_answer->kind = HA_WIRE_ARTIFACT_DATA;
        *data = (struct ha_wire_artifact_data){
            .sha256 = sha256,
            .offset = read->offset,
            .size = SIZE,
            .data = {.data = store.bytes + read->offset, .size = (size_t)read->length},
            .error = store.fail-- > 0 ? "no such artifact" : ""};
    } else {
        chunk = &message->body.artifact_chunk;
        ret_answer->kind = HA_WIRE_ARTIFACT_STATE;
        if (message->kind == HA_WIRE_ARTIFACT_CHUNK && chunk->offset == store.have &&
            chunk->data.size > 0) {
            memcpy(store.bytes + store.have, chunk->data.data, chunk->data.size);
            store.have += (int64_t)chunk->data.size;
        } else if (message->kind == HA_WIRE_ARTIFACT_OPEN) {
            store.complete = store.have == message->body.artifact_open.size &&
                             (store.have > 0 || store.complete);
        }
        if (chunk->size == 0)
            store.complete = message->kind == HA_WIRE_ARTIFACT_CHUNK;
        *state = (struct ha_wire_artifact_state){.sha256 = sha256,
                                                 .have = store.have,
                                                 .complete = store.complete && !store.slow,
                                                 .error = store.fail-- > 0 ? "disk full" : ""};
    }
    ha_wire_message_destroy(message);
    return !store.loss || dice((uint32_t)store.loss) != 0;
}

/* Let time and messages pass until the upload ends; returns its state. */
static int run_upload(struct upload *upload, int64_t *now)
{
    const char *text;

    for (int turn = 0; turn < 10000 && upload_state(upload, &text) == 0; turn++) {
        struct ha_wire_message message;

        if (store.n_queue == 0)
            *now = upload_next_ms(upload);
        if (answer(&message)) {
            upload_receive(upload, &message, *now);
            if (dice(4) == 0)
                upload_receive(upload, &message, *now);
        }
        upload_tick(upload, *now);
    }
    return upload_state(upload, &text);
}

static struct upload *open_upload(int64_t now)
{
    struct upload *upload;
    struct ha_error err = {0};

    if (upload_create(&link_to_store, path, now, &upload, &err) < 0)
        fail_msg("%s", err.text);
    return upload;
}

static void uploads_in_chunks(void **state)
{
    struct upload *upload = open_upload(0);
    int64_t now = 0;

    (void)state;
    assert_int_equal(run_upload(upload, &now), 1);
    assert_string_equal(upload_sha256(upload), sha256);
    assert_int_equal(upload_size(upload), SIZE);
    assert_memory_equal(store.bytes, content, SIZE);
    assert_int_equal(store.most_queued, 4);
    upload_destroy(upload);
}

static void goes_on_where_the_store_is(void **state)
{
    struct upload *upload;
    int64_t now = 0;

    (void)state;
    store.have = 3 << 20;
    memcpy(store.bytes, content, 3 << 20);
    upload = open_upload(0);
    assert_int_equal(run_upload(upload, &now), 1);
    assert_memory_equal(store.bytes, content, SIZE);
    assert_true(store.next_request < 10);
    upload_destroy(upload);
}

static void uploads_over_a_bad_network(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 2; seed++) {
        struct upload *upload;
        int64_t now = 0;

        store.have = 0;
        store.complete = false;
        memset(store.bytes, 0, SIZE);
        store.loss = 3;
        store.seed = seed;
        upload = open_upload(0);
        assert_int_equal(run_upload(upload, &now), 1);
        assert_memory_equal(store.bytes, content, SIZE);
        upload_destroy(upload);
        while (store.n_queue > 0)
            ha_wire_message_destroy(store.queue[--store.n_queue]);
    }
}

static void waits_out_a_full_store(void **state)
{
    struct upload *upload;
    int64_t now = 0;

    (void)state;
    store.fail = 7;
    upload = open_upload(0);
    assert_int_equal(run_upload(upload, &now), 1);
    assert_true(now > 10000);
    assert_memory_equal(store.bytes, content, SIZE);
    upload_destroy(upload);
}

static void uploads_an_empty_file(void **state)
{
    uint8_t digest[HA_SHA256_BYTES];
    struct upload *upload;
    int64_t now = 0;

    (void)state;
    ha_sha256("", 0, digest);
    ha_sha256_hex(digest, sha256);
    assert_int_equal(ha_file_write(path, "", 0, 0644, NULL), 0);
    upload = open_upload(0);
    assert_int_equal(run_upload(upload, &now), 1);
    upload_destroy(upload);
}

static void tells_that_a_file_cannot_be_read(void **state)
{
    struct upload *upload;
    struct ha_error err = {0};
    const char *text;
    int64_t now = 0;

    (void)state;
    assert_int_equal(upload_create(&link_to_store, "/no/such", 0, &upload, &err), -ENOENT);
    upload = open_upload(0);
    assert_int_equal(truncate(path, 2 << 20), 0);
    assert_true(run_upload(upload, &now) < 0);
    assert_true(upload_state(upload, &text) < 0);
    assert_non_null(strstr(text, "was cut"));
    upload_destroy(upload);
}

/* ---- downloads ------------------------------------------------------------------------------- */

static int run_download(struct download *download, int64_t *now)
{
    const char *text;

    for (int turn = 0; turn < 10000 && download_state(download, &text) == 0; turn++) {
        struct ha_wire_message message;

        if (store.n_queue == 0)
            *now = download_next_ms(download);
        if (answer(&message)) {
            download_receive(download, &message, *now);
            if (dice(4) == 0)
                download_receive(download, &message, *now);
        }
        download_tick(download, *now);
    }
    return download_state(download, &text);
}

static void downloads_over_any_network(void **state)
{
    (void)state;
    memcpy(store.bytes, content, SIZE);
    for (int loss = 0; loss < 6; loss += 3) {
        struct download *download;
        char *bytes;
        size_t size;
        int64_t now = 0;

        store.loss = loss;
        assert_int_equal(download_create(&link_to_store, sha256, SIZE, other, 0, &download, NULL),
                         0);
        assert_int_equal(run_download(download, &now), 1);
        assert_true(store.most_queued <= 8);
        assert_int_equal(ha_file_read(other, SIZE, &bytes, &size, NULL), 0);
        assert_int_equal(size, SIZE);
        assert_memory_equal(bytes, content, SIZE);
        free(bytes);
        download_destroy(download);
        assert_int_equal(unlink(other), 0);
        while (store.n_queue > 0)
            ha_wire_message_destroy(store.queue[--store.n_queue]);
    }
}

static void looks_at_what_is_there(void **state)
{
    char damaged[SIZE];
    struct download *download;
    char *bytes;
    size_t size;
    int64_t now = 0;

    (void)state;
    memcpy(store.bytes, content, SIZE);
    assert_int_equal(ha_file_write(other, content, SIZE, 0600, NULL), 0);
    assert_int_equal(download_create(&link_to_store, sha256, SIZE, other, 0, &download, NULL), 0);
    assert_int_equal(download_state(download, &(const char *){0}), 1);
    assert_int_equal(store.n_queue, 0);
    download_destroy(download);

    memcpy(damaged, content, SIZE);
    damaged[SIZE / 2] ^= 1;
    assert_int_equal(ha_file_write(other, damaged, SIZE, 0600, NULL), 0);
    assert_int_equal(download_create(&link_to_store, sha256, SIZE, other, 0, &download, NULL), 0);
    assert_int_equal(run_download(download, &now), 1);
    assert_int_equal(ha_file_read(other, SIZE, &bytes, &size, NULL), 0);
    assert_memory_equal(bytes, content, SIZE);
    free(bytes);
    download_destroy(download);
    assert_int_equal(unlink(other), 0);
    while (store.n_queue > 0)
        ha_wire_message_destroy(store.queue[--store.n_queue]);
    memset(store.bytes, 0, SIZE);
}

static void refuses_another_content(void **state)
{
    struct download *download;
    const char *text;
    int64_t now = 0;

    (void)state; /* the store holds zeros */
    assert_int_equal(download_create(&link_to_store, sha256, SIZE, other, 0, &download, NULL), 0);
    assert_int_equal(run_download(download, &now), -EBADMSG);
    assert_true(download_state(download, &text) < 0);
    assert_non_null(strstr(text, "another content"));
    assert_false(ha_path_exists(other));
    download_destroy(download);
    assert_int_equal(download_create(&link_to_store, "../x", SIZE, other, 0, &download, NULL),
                     -EINVAL);
}

static void tells_what_the_store_says(void **state)
{
    struct download *download;
    const char *text;
    int64_t now = 0;

    (void)state;
    store.fail = 1;
    assert_int_equal(download_create(&link_to_store, sha256, SIZE, other, 0, &download, NULL), 0);
    assert_int_equal(run_download(download, &now), -ENOENT);
    assert_true(download_state(download, &text) < 0);
    assert_non_null(strstr(text, "no such artifact"));
    download_destroy(download);
}

static void gives_up_what_is_never_stored(void **state)
{
    struct ha_wire_message error = {.kind = HA_WIRE_ERROR,
                                    .body.error = {.code = EFBIG, .text = "too large"}};
    struct upload *upload;
    const char *text;

    (void)state;
    assert_int_equal(upload_create(&link_to_store, path, 0, &upload, NULL), 0);
    error.request_id = 999; /* about something else */
    upload_receive(upload, &error, 1);
    assert_int_equal(upload_state(upload, &text), 0);
    error.request_id = 1;
    error.body.error.code = EIO; /* may heal */
    upload_receive(upload, &error, 2);
    assert_int_equal(upload_state(upload, &text), 0);
    error.body.error.code = EFBIG;
    upload_receive(upload, &error, 3);
    assert_int_equal(upload_state(upload, &text), -EFBIG);
    assert_non_null(strstr(text, "too large"));
    upload_destroy(upload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(uploads_in_chunks),
        TEST(goes_on_where_the_store_is),
        TEST(uploads_over_a_bad_network),
        TEST(waits_out_a_full_store),
        TEST(uploads_an_empty_file),
        TEST(tells_that_a_file_cannot_be_read),
        TEST(downloads_over_any_network),
        TEST(looks_at_what_is_there),
        TEST(refuses_another_content),
        TEST(tells_what_the_store_says),
        cmocka_unit_test_setup_teardown(gives_up_what_is_never_stored, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
