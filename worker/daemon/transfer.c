/* Orders and results cross between the threads in two lists under one lock;
 * ha_loop_post only says that there is something in them. */
#include "worker/daemon/transfer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/loop.h"
#include "proto/wire.h"
#include "worker/daemon/mover.h"

enum { DEFAULT_SILENCE_MS = 10000, SILENT_MAX = 3 };

enum order_kind { CONNECT, UPLOAD, DOWNLOAD, STOP };

/* An order, and later its result. */
struct order {
    struct order *next;
    enum order_kind kind;
    uint64_t tag;
    char *path; /* or endpoint */
    char sha256[HA_SHA256_HEX_BYTES];
    int64_t size;
    int code;
    struct ha_error err;
};

struct list {
    struct order *first, **last;
};

struct transfer {
    struct transfer_options options;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the two lists */
    struct list orders, results;
    struct ha_loop *loop; /* all below belongs to the thread */
    struct ha_loop_timer *timer;
    struct ha_client *client; /* NULL: no endpoint yet */
    char *endpoint;
    uint64_t next_request;
    int64_t heard_ms, reopened_ms;
    struct list uploads, downloads; /* first: under way, when there is a mover */
    struct upload *upload;
    struct download *download;
};

/* ---- lists --------------------------------------------------------------------------------- */

static void list_init(struct list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_add(struct list *list, struct order *order)
{
    order->next = NULL;
    *list->last = order;
    list->last = &order->next;
}

static struct order *list_take(struct list *list)
{
    struct order *order = list->first;

    if (!order)
        return NULL;
    list->first = order->next;
    if (!list->first)
        list->last = &list->first;
    return order;
}

static void free_order(struct order *order)
{
    free(order->path);
    free(order);
}

static void list_clear(struct list *list)
{
    struct order *order;

    while ((order = list_take(list)) != NULL)
        free_order(order);
}

/* ---- in the owner's thread ------------------------------------------------------------------- */

static void hand_over(void *context)
{
    struct transfer *transfer = context;
    struct order *order;

    for (;;) {
        pthread_mutex_lock(&transfer->lock);
        order = list_take(&transfer->results);
        pthread_mutex_unlock(&transfer->lock);
        if (!order)
            return;
        transfer->options.done(transfer->options.context,
                               &(struct transfer_result){.tag = order->tag,
                                                         .code = order->code,
                                                         .text = order->code ? order->err.text : "",
                                                         .sha256 = order->sha256,
                                                         .size = order->size});
        free_order(order);
    }
}

/* ---- in the transfer's thread ---------------------------------------------------------------- */

static void turn(struct transfer *transfer);

/* The order is carried out, or cannot be. */
static void finish(struct transfer *transfer, struct order *order, int code, const char *text)
{
    order->code = code;
    if (code < 0)
        ha_error_set(&order->err, -code, "%s", text);
    pthread_mutex_lock(&transfer->lock);
    list_add(&transfer->results, order);
    pthread_mutex_unlock(&transfer->lock);
    (void)ha_loop_post(transfer->options.loop, hand_over, transfer);
}

static uint64_t send_message(void *context, struct ha_wire_message *message)
{
    struct transfer *transfer = context;
    struct ha_buffer frame;
    int r;

    if (!transfer->client)
        return 0;
    message->protocol = HA_WIRE_PROTOCOL;
    message->request_id = transfer->next_request;
    ha_buffer_init(&frame, 0);
    r = ha_wire_encode(message, &frame, NULL);
    if (r == 0)
        r = ha_client_send(transfer->client, frame.data, frame.size);
    ha_buffer_clear(&frame);
    return r < 0 ? 0 : transfer->next_request++;
}

static void receive(void *context, const void *data, size_t size)
{
    struct transfer *transfer = context;
    struct ha_wire_message *message;
    int64_t now = ha_loop_now_ms(transfer->loop);

    if (ha_wire_decode(data, size, &ha_wire_default_limits, &message, NULL) < 0)
        return; /* as if it were lost */
    transfer->heard_ms = now;
    if (transfer->upload)
        upload_receive(transfer->upload, message, now);
    if (transfer->download)
        download_receive(transfer->download, message, now);
    ha_wire_message_destroy(message);
    turn(transfer);
}

static void start_upload(struct transfer *transfer, const struct mover_link *link)
{
    struct ha_error err = {0};

    while (!transfer->upload && transfer->uploads.first) {
        int r = upload_create(link, transfer->uploads.first->path, ha_loop_now_ms(transfer->loop),
                              &transfer->upload, &err);

        if (r < 0)
            finish(transfer, list_take(&transfer->uploads), r, ha_error_text(&err));
    }
}

static void start_download(struct transfer *transfer, const struct mover_link *link)
{
    struct ha_error err = {0};

    while (!transfer->download && transfer->downloads.first) {
        const struct order *order = transfer->downloads.first;
        int r = download_create(link, order->sha256, order->size, order->path,
                                ha_loop_now_ms(transfer->loop), &transfer->download, &err);

        if (r < 0)
            finish(transfer, list_take(&transfer->downloads), r, ha_error_text(&err));
    }
}

static void end_upload(struct transfer *transfer)
{
    const char *text;
    int state = transfer->upload ? upload_state(transfer->upload, &text) : 0;
    struct order *order;

    if (state == 0)
        return;
    order = list_take(&transfer->uploads);
    order->size = upload_size(transfer->upload);
    memcpy(order->sha256, upload_sha256(transfer->upload), sizeof(order->sha256));
    finish(transfer, order, state < 0 ? state : 0, text);
    upload_destroy(transfer->upload);
    transfer->upload = NULL;
}

static void end_download(struct transfer *transfer)
{
    const char *text;
    int state = transfer->download ? download_state(transfer->download, &text) : 0;

    if (state == 0)
        return;
    finish(transfer, list_take(&transfer->downloads), state < 0 ? state : 0, text);
    download_destroy(transfer->download);
    transfer->download = NULL;
}

/* A connection that says nothing, though it is asked, is opened anew. */
static void mind_silence(struct transfer *transfer, int64_t now_ms)
{
    int64_t limit = SILENT_MAX * transfer->options.silence_ms;

    if (!transfer->client || now_ms < transfer->heard_ms + limit ||
        now_ms < transfer->reopened_ms + limit)
        return;
    transfer->reopened_ms = now_ms;
    (void)ha_client_reopen(transfer->client, NULL); /* if not, then later */
}

/* Do what is due, end what is done, begin what waits, and set the timer. */
static void turn(struct transfer *transfer)
{
    const struct mover_link link = {
        .send = send_message, .context = transfer, .silence_ms = transfer->options.silence_ms};
    int64_t now = ha_loop_now_ms(transfer->loop), next = INT64_MAX;
    bool busy = transfer->upload || transfer->download;

    if (transfer->upload)
        upload_tick(transfer->upload, now);
    if (transfer->download)
        download_tick(transfer->download, now);
    if (busy)
        mind_silence(transfer, now);
    else
        transfer->heard_ms = now;
    /* A small file may be done as soon as it is begun. */
    do {
        end_upload(transfer);
        end_download(transfer);
        start_upload(transfer, &link);
        start_download(transfer, &link);
    } while (transfer->download && download_state(transfer->download, &(const char *){0}) != 0);
    if (transfer->upload)
        next = upload_next_ms(transfer->upload);
    if (transfer->download && download_next_ms(transfer->download) < next)
        next = download_next_ms(transfer->download);
    if (next < INT64_MAX)
        ha_loop_timer_set(transfer->timer, next);
    else
        ha_loop_timer_unset(transfer->timer);
}

static void on_timer(void *context)
{
    turn(context);
}

static void set_endpoint(struct transfer *transfer, const char *endpoint)
{
    struct ha_client *client;

    if (transfer->endpoint && strcmp(transfer->endpoint, endpoint) == 0)
        return;
    if (ha_client_create(transfer->options.net, transfer->loop, endpoint, &transfer->options.socket,
                         receive, transfer, &client, NULL) < 0)
        return; /* the owner has checked the endpoint; what is left is short memory */
    ha_client_destroy(transfer->client);
    transfer->client = client;
    free(transfer->endpoint);
    transfer->endpoint = ha_strdup(endpoint);
}

static void take_orders(void *context)
{
    struct transfer *transfer = context;

    for (;;) {
        struct order *order;

        pthread_mutex_lock(&transfer->lock);
        order = list_take(&transfer->orders);
        pthread_mutex_unlock(&transfer->lock);
        if (!order)
            break;
        if (order->kind == UPLOAD) {
            list_add(&transfer->uploads, order);
            continue;
        }
        if (order->kind == DOWNLOAD) {
            list_add(&transfer->downloads, order);
            continue;
        }
        if (order->kind == CONNECT)
            set_endpoint(transfer, order->path);
        else
            ha_loop_stop(transfer->loop);
        free_order(order);
    }
    turn(transfer);
}

static void *run(void *context)
{
    struct transfer *transfer = context;

    (void)ha_loop_run(transfer->loop, NULL);
    upload_destroy(transfer->upload);
    download_destroy(transfer->download);
    ha_client_destroy(transfer->client);
    ha_loop_timer_destroy(transfer->timer);
    return NULL;
}

/* ---- orders
 * ------------------------------------------------------------------------------------------ */

static int give_order(struct transfer *transfer, const struct order *order, const char *path)
{
    struct order *own = ha_calloc(1, sizeof(*own));

    if (own) {
        *own = *order;
        own->path = ha_strdup(path);
    }
    if (!own || (path && !own->path)) {
        free(own);
        return -ENOMEM;
    }
    pthread_mutex_lock(&transfer->lock);
    list_add(&transfer->orders, own);
    pthread_mutex_unlock(&transfer->lock);
    return ha_loop_post(transfer->loop, take_orders, transfer);
}

int transfer_connect(struct transfer *transfer, const char *endpoint)
{
    return give_order(transfer, &(struct order){.kind = CONNECT}, endpoint);
}

int transfer_upload(struct transfer *transfer, uint64_t tag, const char *path)
{
    return give_order(transfer, &(struct order){.kind = UPLOAD, .tag = tag}, path);
}

int transfer_download(struct transfer *transfer, uint64_t tag, const char *sha256, int64_t size,
                      const char *path)
{
    struct order order = {.kind = DOWNLOAD, .tag = tag, .size = size};

    if (strlen(sha256) >= sizeof(order.sha256))
        return -EINVAL;
    (void)snprintf(order.sha256, sizeof(order.sha256), "%s", sha256);
    return give_order(transfer, &order, path);
}

static void free_transfer(struct transfer *transfer)
{
    ha_loop_destroy(transfer->loop);
    list_clear(&transfer->orders);
    list_clear(&transfer->results);
    list_clear(&transfer->uploads);
    list_clear(&transfer->downloads);
    pthread_mutex_destroy(&transfer->lock);
    free(transfer->endpoint);
    free(transfer);
}

int transfer_create(const struct transfer_options *options, struct transfer **ret_transfer,
                    struct ha_error *err)
{
    struct transfer *transfer = ha_calloc(1, sizeof(*transfer));
    sigset_t all, old;
    int r;

    if (!transfer)
        return ha_error_set(err, ENOMEM, "out of memory");
    transfer->options = *options;
    if (transfer->options.silence_ms == 0)
        transfer->options.silence_ms = DEFAULT_SILENCE_MS;
    transfer->next_request = 1;
    pthread_mutex_init(&transfer->lock, NULL);
    list_init(&transfer->orders);
    list_init(&transfer->results);
    list_init(&transfer->uploads);
    list_init(&transfer->downloads);
    r = ha_loop_create(&transfer->loop, err);
    if (r == 0)
        r = ha_loop_timer_create(transfer->loop, on_timer, transfer, &transfer->timer, err);
    if (r == 0) {
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = -pthread_create(&transfer->thread, NULL, run, transfer);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r < 0) {
            ha_loop_timer_destroy(transfer->timer);
            ha_error_set(err, -r, "cannot start a thread: %s", strerror(-r));
        }
    }
    if (r < 0) {
        free_transfer(transfer);
        return r;
    }
    *ret_transfer = transfer;
    return 0;
}

void transfer_destroy(struct transfer *transfer)
{
    if (!transfer)
        return;
    /* Without memory for the order, nothing else would work either. */
    while (give_order(transfer, &(struct order){.kind = STOP}, NULL) == -ENOMEM)
        ;
    pthread_join(transfer->thread, NULL);
    free_transfer(transfer);
}

char *transfer_endpoint(const char *endpoint, const char *coordinator)
{
    static const char *const everywhere[] = {"tcp://0.0.0.0:", "tcp://[::]:", "tcp://*:"};
    const char *colon = strrchr(coordinator, ':');

    for (size_t i = 0; i < sizeof(everywhere) / sizeof(everywhere[0]); i++) {
        size_t length = strlen(everywhere[i]);

        if (strncmp(endpoint, everywhere[i], length) == 0)
            return ha_format("%.*s:%s", (int)(colon - coordinator), coordinator, endpoint + length);
    }
    return ha_strdup(endpoint);
}
