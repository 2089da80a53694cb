/* ZeroMQ asks inproc://zeromq.zap.01 (RFC 27) about every CURVE handshake.
 * Whatever is not a CURVE request for our domain with a key of the allow-list
 * is refused.  The user id that comes with each message is the public key. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/net/net_inside.h"

const char ha_zap_domain[] = "hierarchical-align";

enum {
    /* Frames of a request, in order. */
    VERSION,
    REQUEST_ID,
    DOMAIN,
    ADDRESS,
    IDENTITY,
    MECHANISM,
    CREDENTIALS,
    N_FRAMES,
    FRAME_BYTES = 256,
    BINARY_KEY_BYTES = 32
};

struct frame {
    uint8_t bytes[FRAME_BYTES];
    int size;
};

struct ha_zap {
    struct ha_net *net;
    void *socket;
    pthread_t thread;
};

static bool frame_is(const struct frame *frame, const char *text)
{
    return (size_t)frame->size == strlen(text) &&
           memcmp(frame->bytes, text, (size_t)frame->size) == 0;
}

/* Read one request.  Returns the number of frames (more than N_FRAMES are
 * counted and dropped), or -1 when the context was shut down. */
static int read_request(void *socket, struct frame frames[N_FRAMES])
{
    struct frame extra;
    int more = 1, n = 0;
    size_t more_size = sizeof(more);

    for (; more; n++) {
        struct frame *frame = n < N_FRAMES ? &frames[n] : &extra;

        do
            frame->size = zmq_recv(socket, frame->bytes, FRAME_BYTES, 0);
        while (frame->size < 0 && errno == EINTR);
        if (frame->size < 0)
            return -1;
        if (frame->size > FRAME_BYTES)
            frame->size = FRAME_BYTES; /* cut: it will not be equal to anything */
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size) < 0)
            return -1;
    }
    return n;
}

/* True when the request may pass; key: its public key as text. */
static bool judge(struct ha_zap *zap, const struct frame frames[N_FRAMES], int n,
                  char key[HA_CURVE_KEY_BYTES])
{
    char name[HA_NET_NAME_BYTES];

    return n == N_FRAMES && frame_is(&frames[VERSION], "1.0") &&
           frame_is(&frames[DOMAIN], ha_zap_domain) && frame_is(&frames[MECHANISM], "CURVE") &&
           frames[CREDENTIALS].size == BINARY_KEY_BYTES &&
           zmq_z85_encode(key, frames[CREDENTIALS].bytes, BINARY_KEY_BYTES) != NULL &&
           ha_net_role_of(zap->net, key, name) != HA_NET_ROLE_NONE;
}

static void *serve(void *context)
{
    struct ha_zap *zap = context;
    struct frame frames[N_FRAMES];
    char key[HA_CURVE_KEY_BYTES];
    int n;

    while ((n = read_request(zap->socket, frames)) >= 0) {
        bool allowed = judge(zap, frames, n, key);

        if (n <= REQUEST_ID)
            frames[REQUEST_ID].size = 0;
        zmq_send(zap->socket, "1.0", 3, ZMQ_SNDMORE);
        zmq_send(zap->socket, frames[REQUEST_ID].bytes, (size_t)frames[REQUEST_ID].size,
                 ZMQ_SNDMORE);
        zmq_send(zap->socket, allowed ? "200" : "400", 3, ZMQ_SNDMORE);
        zmq_send(zap->socket, allowed ? "OK" : "no", 2, ZMQ_SNDMORE);
        zmq_send(zap->socket, key, allowed ? strlen(key) : 0, ZMQ_SNDMORE);
        zmq_send(zap->socket, "", 0, 0);
    }
    zmq_close(zap->socket);
    return NULL;
}

int ha_zap_start(struct ha_net *net, void *context, struct ha_zap **ret_zap, struct ha_error *err)
{
    struct ha_zap *zap = ha_calloc(1, sizeof(*zap));
    sigset_t all, old;
    int linger = 0, r;

    if (!zap)
        return ha_error_set(err, ENOMEM, "out of memory");
    zap->net = net;
    zap->socket = zmq_socket(context, ZMQ_REP);
    if (!zap->socket || zmq_setsockopt(zap->socket, ZMQ_LINGER, &linger, sizeof(linger)) < 0 ||
        zmq_bind(zap->socket, "inproc://zeromq.zap.01") < 0) {
        r = ha_error_set(err, errno, "cannot check keys: %s", zmq_strerror(errno));
        goto fail;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&zap->thread, NULL, serve, zap);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0) {
        r = ha_error_set(err, r, "cannot start the thread that checks keys: %s", strerror(r));
        goto fail;
    }
    *ret_zap = zap;
    return 0;
fail:
    if (zap->socket)
        zmq_close(zap->socket);
    free(zap);
    return r;
}

void ha_zap_join(struct ha_zap *zap)
{
    if (!zap)
        return;
    pthread_join(zap->thread, NULL);
    free(zap);
}
