#include "tests/bench/control/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buffer.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "common/net/socket.h"

enum { CALL_MS = 120000, HELLO_MS = 20 };

static const char blob[] = "a file of the benchmark\n";

void bench_die(const char *format, ...)
{
    va_list args;

    fputs("bench_control: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* ---- times ----------------------------------------------------------------------------------- */

void bench_times_add(struct bench_times *times, int64_t ns)
{
    void *array = times->ns;

    if (ha_grow(&array, &times->capacity, times->count + 1, sizeof *times->ns) < 0)
        bench_die("no memory");
    times->ns = array;
    times->ns[times->count++] = ns;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

double bench_times_at(struct bench_times *times, double part)
{
    int64_t at = (int64_t)(part * (double)times->count);

    if (times->count == 0)
        return 0;
    qsort(times->ns, (size_t)times->count, sizeof *times->ns, compare);
    return (double)times->ns[at < times->count ? at : times->count - 1] / 1e6;
}

void bench_times_print(const char *name, struct bench_times *times)
{
    printf("%s p50 %.3f ms p99 %.3f ms longest %.3f ms of %" PRId64 "\n", name,
           bench_times_at(times, 0.5), bench_times_at(times, 0.99), bench_times_at(times, 1),
           times->count);
}

void bench_times_clear(struct bench_times *times)
{
    free(times->ns);
    *times = (struct bench_times){0};
}

void bench_fdatasync(const char *dir, int64_t count, struct bench_times *times)
{
    char *path = ha_format("%s/fdatasync", dir);
    char page[4096];
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;

    if (fd < 0)
        bench_die("%s: %s", dir, strerror(errno));
    memset(page, 'x', sizeof page);
    for (int64_t i = 0; i < count; i++) {
        int64_t begin_ns = ha_clock_work_ns();

        if (write(fd, page, sizeof page) != (ssize_t)sizeof page || fdatasync(fd) < 0)
            bench_die("%s: %s", path, strerror(errno));
        bench_times_add(times, ha_clock_work_ns() - begin_ns);
    }
    close(fd);
    unlink(path);
    free(path);
}

/* ---- connections
 * ---------------------------------------------------------------------------------- */

void bench_network_open(struct bench_network *network, const char *endpoint)
{
    struct ha_error err = {0};

    *network = (struct bench_network){.endpoint = endpoint};
    if (ha_loop_create(&network->loop, &err) < 0)
        bench_die("%s", ha_error_text(&err));
}

void bench_network_close(struct bench_network *network)
{
    for (int64_t i = 0; i < network->n_nets; i++)
        ha_net_destroy(network->nets[i]);
    free(network->nets);
    ha_loop_destroy(network->loop);
}

static struct ha_net *next_net(struct bench_network *network)
{
    struct ha_error err = {0};

    if (network->n_sockets++ % BENCH_SOCKETS_PER_NET == 0) {
        network->nets = ha_realloc(network->nets, network->n_nets + 1, sizeof *network->nets);
        if (!network->nets || ha_net_create(&network->nets[network->n_nets++], &err) < 0)
            bench_die("%s", ha_error_text(&err));
    }
    return network->nets[network->n_nets - 1];
}

static void on_message(void *context, const void *data, size_t size)
{
    struct bench_peer *peer = context;
    struct ha_wire_message *message;
    struct ha_error err = {0};

    if (ha_wire_decode(data, size, &ha_wire_default_limits, &message, &err) < 0)
        bench_die("%s", ha_error_text(&err));
    peer->fn(peer->context, message);
    ha_wire_message_destroy(message);
}

void bench_peer_open(struct bench_peer *peer, struct bench_network *network, const char *endpoint,
                     bench_message_fn fn, void *context)
{
    struct ha_socket_options options = {.insecure_loopback = true};
    struct ha_error err = {0};

    *peer = (struct bench_peer){.network = network, .fn = fn, .context = context};
    if (ha_client_create(next_net(network), network->loop, endpoint, &options, on_message, peer,
                         &peer->client, &err) < 0)
        bench_die("%s", ha_error_text(&err));
}

void bench_peer_close(struct bench_peer *peer)
{
    ha_client_destroy(peer->client);
    peer->client = NULL;
}

uint64_t bench_peer_send(struct bench_peer *peer, struct ha_wire_message *message)
{
    struct ha_error err = {0};
    struct ha_buffer bytes;

    message->protocol = HA_WIRE_PROTOCOL;
    message->request_id = ++peer->next_request;
    ha_buffer_init(&bytes, 0);
    if (ha_wire_encode(message, &bytes, &err) < 0)
        bench_die("%s", ha_error_text(&err));
    if (ha_client_send(peer->client, bytes.data, bytes.size) < 0)
        bench_die("a message could not be sent");
    ha_buffer_clear(&bytes);
    return message->request_id;
}

/* The reply that a call waits for: there is one call at a time. */
static struct {
    uint64_t request;
    struct ha_wire_message *reply;
} awaited;

void bench_keep(void *context, const struct ha_wire_message *message)
{
    struct ha_error err = {0};

    (void)context;
    if (message->request_id != awaited.request || awaited.reply)
        return;
    if (ha_wire_copy(message, &awaited.reply, NULL, &err) < 0)
        bench_die("%s", ha_error_text(&err));
}

static struct ha_wire_message *await(struct bench_peer *peer, int64_t wait_ms)
{
    int64_t end_ms = ha_clock_boot_ms() + wait_ms;
    struct ha_wire_message *reply;
    struct ha_error err = {0};

    while (!awaited.reply && ha_clock_boot_ms() < end_ms)
        if (ha_loop_turn(peer->network->loop, end_ms - ha_clock_boot_ms(), &err) < 0)
            bench_die("%s", ha_error_text(&err));
    reply = awaited.reply;
    awaited.reply = NULL;
    awaited.request = 0;
    return reply;
}

struct ha_wire_message *bench_peer_call(struct bench_peer *peer, struct ha_wire_message *message)
{
    struct ha_wire_message *reply;

    awaited.request = bench_peer_send(peer, message);
    reply = await(peer, CALL_MS);
    if (!reply)
        bench_die("no answer to %s", ha_wire_body_name(message->kind));
    if (reply->kind == HA_WIRE_ERROR)
        bench_die("%s: %s", ha_wire_body_name(message->kind), reply->body.error.text);
    return reply;
}

void bench_hello_client(struct bench_peer *peer)
{
    struct ha_wire_message hello = {
        .kind = HA_WIRE_HELLO,
        .body.hello = {.role = HA_WIRE_ROLE_CLIENT, .instance = "bench", .host = "bench"}};
    struct ha_wire_message *reply = NULL;

    for (int i = 0; !reply && i < CALL_MS / HELLO_MS; i++) {
        awaited.request = bench_peer_send(peer, &hello);
        reply = await(peer, HELLO_MS);
    }
    if (!reply)
        bench_die("no coordinator answers");
    ha_wire_message_destroy(reply);
}

/* ---- grids
 * ------------------------------------------------------------------------------------------ */

static const char *digest_of(const char *text, char hex[HA_SHA256_HEX_BYTES])
{
    uint8_t digest[HA_SHA256_BYTES];

    ha_sha256(text, strlen(text), digest);
    return ha_sha256_hex(digest, hex);
}

const char *bench_blob(void)
{
    static char hex[HA_SHA256_HEX_BYTES];

    return hex[0] ? hex : digest_of(blob, hex);
}

/* Sends the one chunk until it is complete: its row comes with a later turn. */
void bench_upload(struct bench_network *network, struct bench_peer *client)
{
    struct ha_wire_message hello = {
        .kind = HA_WIRE_HELLO,
        .body.hello = {.role = HA_WIRE_ROLE_CLIENT, .instance = "bench", .host = "bench"}};
    struct ha_wire_message *reply = bench_peer_call(client, &hello);
    struct bench_peer files;
    bool complete = false;

    bench_peer_open(&files, network, reply->body.hello_reply.files_endpoint, bench_keep, &files);
    ha_wire_message_destroy(reply);
    while (!complete) {
        struct ha_wire_message chunk = {
            .kind = HA_WIRE_ARTIFACT_CHUNK,
            .body.artifact_chunk = {.sha256 = bench_blob(),
                                    .size = (int64_t)strlen(blob),
                                    .data = {(const uint8_t *)blob, strlen(blob)}}};

        reply = bench_peer_call(&files, &chunk);
        if (reply->kind != HA_WIRE_ARTIFACT_STATE || reply->body.artifact_state.error[0])
            bench_die("upload: %s", reply->body.artifact_state.error);
        complete = reply->body.artifact_state.complete;
        ha_wire_message_destroy(reply);
    }
    bench_peer_close(&files);
}

static char *grid_text(const char *name, int64_t cells, bool pairs, const char *fuse)
{
    struct ha_buffer text;
    int r;

    ha_buffer_init(&text, 0);
    r = ha_buffer_printf(&text,
                         "[sweep]\nname = \"%s\"\n[[model]]\npath = \"tiny\"\n"
                         "[strategies]\nuse = [\"%s\"]\n"
                         "[data]\ntrain = [\"train.jsonl\"]\neval = [\"eval.jsonl\"]\n"
                         "eval_samples = 1\n[generate]\ntemperature = %d\n"
                         "[schedule]\nfuse = \"%s\"\n[vary]\nseed = [",
                         name, pairs ? "mid" : "base", !pairs, fuse);
    for (int64_t i = 0; r == 0 && i < cells; i++)
        r = ha_buffer_printf(&text, "%s%" PRId64, i > 0 ? "," : "", i + 1);
    if (r == 0)
        r = ha_buffer_append_text(&text, "]\n");
    if (r < 0)
        bench_die("no memory");
    return ha_buffer_detach(&text);
}

void bench_submit_message(const char *name, int64_t cells, bool pairs, const char *fuse,
                          struct ha_wire_message *ret_message, char **ret_text)
{
    static struct ha_wire_submit_model model;
    static struct ha_wire_submit_file files[2];
    static char digest[HA_SHA256_HEX_BYTES];

    *ret_text = grid_text(name, cells, pairs, fuse);
    model = (struct ha_wire_submit_model){.name = "tiny",
                                          .path = "/models/tiny",
                                          .digest = digest_of(name, digest),
                                          .tokenizer_digest = bench_blob(),
                                          .layers = 6,
                                          .family = "llama"};
    for (int i = 0; i < 2; i++)
        files[i] = (struct ha_wire_submit_file){.path = i == 0 ? "train.jsonl" : "eval.jsonl",
                                                .sha256 = bench_blob(),
                                                .size = (int64_t)strlen(blob),
                                                .split = i == 0 ? "train" : "eval"};
    *ret_message = (struct ha_wire_message){.kind = HA_WIRE_SUBMIT,
                                            .body.submit = {.key = name,
                                                            .toml = *ret_text,
                                                            .base_dir = "/grids",
                                                            .models = &model,
                                                            .n_models = 1,
                                                            .files = files,
                                                            .n_files = 2}};
}

void bench_submit(struct bench_peer *client, const char *name, int64_t cells, bool pairs,
                  const char *fuse)
{
    struct ha_wire_message message, *reply;
    char *text;

    bench_submit_message(name, cells, pairs, fuse, &message, &text);
    reply = bench_peer_call(client, &message);
    if (reply->kind != HA_WIRE_SUBMIT_REPLY ||
        strcmp(reply->body.submit_reply.outcome, "created") != 0)
        bench_die("the grid was not taken: %s", reply->body.submit_reply.n_notes > 0
                                                    ? reply->body.submit_reply.notes[0]
                                                    : reply->body.submit_reply.outcome);
    ha_wire_message_destroy(reply);
    free(text);
}

void bench_wait_expanded(struct bench_peer *client, const char *name, int64_t cells, bool pairs)
{
    int64_t stages = 0;

    while (stages < cells * (pairs ? 2 : 1)) {
        struct ha_wire_message ask = {.kind = HA_WIRE_STATUS_REQUEST,
                                      .body.status_request = {.sweep = name, .limit = 1}};
        struct ha_wire_message *reply = bench_peer_call(client, &ask);

        stages = reply->body.status_reply.sweep.stages;
        ha_wire_message_destroy(reply);
        usleep(2000);
    }
}
