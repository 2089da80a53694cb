#include "coordinator/hactl/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/io/file.h"
#include "coordinator/hactl/capture.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/transfer.h"

enum { POLL_MS = 100, KEEP_MS = 30000 };

struct ha_snapshot {
    struct ha_link *link;
    char key[HA_LINK_KEY_BYTES];
    char *folder;
    char sha256[HA_SHA256_HEX_BYTES];
    int64_t size, asked_ms;
    bool here;
};

static int ask(struct ha_snapshot *s, bool end, struct ha_wire_message **ret_reply,
               struct ha_error *err)
{
    struct ha_wire_message request = {.kind = HA_WIRE_BACKUP,
                                      .body.backup = {.key = s->key, .end = end}};

    s->asked_ms = ha_clock_boot_ms();
    return ha_link_call(s->link, &request, HA_WIRE_BACKUP_REPLY, 0, ret_reply, err);
}

static char *own_file(const struct ha_snapshot *s)
{
    return ha_format("%s/snapshot/%s", s->folder, s->sha256);
}

/* Returns 1. */
static int see_folder(struct ha_snapshot *s, struct ha_error *err)
{
    char *file = own_file(s);

    if (!file)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    s->here = access(file, F_OK) == 0;
    free(file);
    return 1;
}

/* 1 when it is ready. */
static int look(struct ha_snapshot *s, ha_snapshot_fn fn, struct ha_error *err)
{
    const struct ha_wire_backup_reply *reply;
    struct ha_wire_message *message;
    int r = ask(s, false, &message, err);

    if (r < 0)
        return r;
    reply = &message->body.backup_reply;
    if (fn)
        fn("database", reply->done, reply->total);
    if (strcmp(reply->state, "failed") == 0)
        r = ha_error_set(err, EIO, "the coordinator cannot copy its database: %s", reply->error);
    if (strcmp(reply->state, "ready") == 0) {
        free(s->folder);
        s->folder = ha_strdup(reply->folder);
        s->size = reply->size;
        (void)snprintf(s->sha256, sizeof(s->sha256), "%s", reply->sha256);
        r = s->folder ? see_folder(s, err) : ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    ha_wire_message_destroy(message);
    return r;
}

int ha_snapshot_take(struct ha_link *link, ha_snapshot_fn fn, struct ha_snapshot **ret_snapshot,
                     struct ha_error *err)
{
    struct ha_snapshot *s = ha_calloc(1, sizeof(*s));
    int r;

    if (!s)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    s->link = link;
    r = ha_link_new_key(s->key, err);
    while (r == 0 && (r = look(s, fn, err)) == 0)
        usleep(POLL_MS * 1000);
    if (r < 0) {
        ha_snapshot_end(s);
        return r;
    }
    *ret_snapshot = s;
    return 0;
}

void ha_snapshot_end(struct ha_snapshot *s)
{
    struct ha_wire_message *reply;

    if (!s)
        return;
    if (s->key[0] && ask(s, true, &reply, NULL) == 0)
        ha_wire_message_destroy(reply);
    free(s->folder);
    free(s);
}

const char *ha_snapshot_sha256(const struct ha_snapshot *s)
{
    return s->sha256;
}

int64_t ha_snapshot_size(const struct ha_snapshot *s)
{
    return s->size;
}

bool ha_snapshot_is_here(const struct ha_snapshot *s)
{
    return s->here;
}

const char *ha_snapshot_folder(const struct ha_snapshot *s)
{
    return s->folder;
}

/* A coordinator that was started anew does not know the copy any more, and what it
 * names may be removed. */
static int keep(struct ha_snapshot *s, struct ha_error *err)
{
    char before[HA_SHA256_HEX_BYTES];
    int r;

    if (ha_clock_boot_ms() - s->asked_ms < KEEP_MS)
        return 0;
    memcpy(before, s->sha256, sizeof(before));
    r = look(s, NULL, err);
    if (r == 0 || (r == 1 && strcmp(before, s->sha256) != 0))
        return ha_error_set(err, ESTALE, "the coordinator was started anew meanwhile; try again");
    return r < 0 ? r : 0;
}

/* Is the file at path what its name says? */
static int verify(const char *path, const char *sha256, int64_t size, struct ha_error *err)
{
    char hex[HA_SHA256_HEX_BYTES];
    int64_t bytes;
    int r = ha_file_sha256(path, hex, &bytes, err);

    if (r == 0 && (bytes != size || strcmp(hex, sha256) != 0))
        r = ha_error_set(err, EBADMSG, "artifact %s is damaged in the store (%lld bytes, hash %s)",
                         sha256, (long long)bytes, hex);
    return r;
}

/* From a file on this machine: 1, or 0 when there is none that can be read. */
static int from_here(const struct ha_snapshot *s, const char *file, const char *path, bool links,
                     struct ha_error *err)
{
    if (!s->here)
        return 0;
    if (links && link(file, path) == 0)
        return 1;
    if (access(file, R_OK) < 0)
        return 0;
    return ha_file_copy(file, path, 0600, err) < 0 ? -EIO : 1;
}

int ha_snapshot_get(struct ha_snapshot *s, const char *path, struct ha_error *err)
{
    char *file = own_file(s);
    int r = file ? from_here(s, file, path, true, err)
                 : ha_error_set(err, ENOMEM, "hactl: out of memory");

    free(file);
    if (r == 0)
        r = ha_transfer_get(s->link, s->sha256, path, err);
    if (r >= 0)
        r = verify(path, s->sha256, s->size, err);
    if (r == 0 && chmod(path, 0600) < 0)
        r = ha_error_set(err, errno, "%s: %s", path, strerror(errno));
    return r;
}

int ha_snapshot_get_artifact(struct ha_snapshot *s, const char *sha256, int64_t size,
                             const char *path, bool links, struct ha_error *err)
{
    char *file = ha_format("%s/%.2s/%s", s->folder, sha256, sha256);
    int r = file ? keep(s, err) : ha_error_set(err, ENOMEM, "hactl: out of memory");

    if (r == 0)
        r = from_here(s, file, path, links, err);
    free(file);
    if (r == 0)
        r = ha_transfer_get(s->link, sha256, path, err);
    return r < 0 ? r : verify(path, sha256, size, err);
}

/* ---- inventory --------------------------------------------------------------------------- */

static int read_facts(const char *line, struct ha_inventory *inventory, struct ha_error *err)
{
    struct ha_json *json;
    int r = ha_json_parse(line, strlen(line), "ha-coordinator --inspect", &json, err);

    if (r < 0)
        return r;
    if (ha_json_get(json, "error")) {
        r = ha_error_set(err, EBADMSG, "%s",
                         ha_json_string(ha_json_get(json, "error"), "it is not sound"));
        ha_json_destroy(json);
        return r;
    }
    inventory->schema = ha_json_int(ha_json_get(json, "schema"), 0);
    inventory->sweeps = ha_json_int(ha_json_get(json, "sweeps"), 0);
    inventory->events = ha_json_int(ha_json_get(json, "events"), 0);
    inventory->last_event_ms = ha_json_int(ha_json_get(json, "last_event_ms"), 0);
    inventory->bytes = ha_json_int(ha_json_get(json, "bytes"), 0);
    ha_json_destroy(json);
    return 0;
}

static int read_item(const char *line, struct ha_inventory *inventory, int64_t *capacity,
                     struct ha_error *err)
{
    struct ha_inventory_item item;
    void *items = inventory->items;
    const char *space = strchr(line, ' ');

    if (!space || space - line != HA_SHA256_HEX_BYTES - 1)
        return ha_error_set(err, EBADMSG, "ha-coordinator --inspect prints \"%.80s\"", line);
    if (ha_grow(&items, capacity, inventory->count + 1, sizeof(item)) < 0)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    inventory->items = items;
    (void)snprintf(item.sha256, sizeof(item.sha256), "%.64s", line);
    item.size = strtoll(space + 1, NULL, 10);
    inventory->items[inventory->count++] = item;
    return 0;
}

int ha_inventory_read(const char *path, struct ha_inventory *ret_inventory, struct ha_error *err)
{
    const char *arguments[] = {"ha-coordinator", "--inspect", path, NULL};
    struct ha_inventory inventory = {.count = 0};
    char *text, *rest, *line;
    int64_t capacity = 0;
    int status, r = ha_capture_status(arguments, &text, &status, err);

    if (r < 0)
        return r;
    rest = text;
    line = strsep(&rest, "\n");
    r = read_facts(line ? line : "", &inventory, err);
    if (r == 0 && status != 0)
        r = ha_error_set(err, ECANCELED, "ha-coordinator --inspect %s failed", path);
    while (r == 0 && (line = strsep(&rest, "\n")) != NULL) {
        if (line[0])
            r = read_item(line, &inventory, &capacity, err);
    }
    free(text);
    if (r < 0)
        ha_inventory_clear(&inventory);
    else
        *ret_inventory = inventory;
    return r;
}

void ha_inventory_clear(struct ha_inventory *inventory)
{
    free(inventory->items);
    inventory->items = NULL;
    inventory->count = 0;
}
