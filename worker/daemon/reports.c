#include "worker/daemon/reports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"

struct report_entry {
    struct report_entry *next;
    struct ha_wire_message *message; /* a report of this one event: the copy */
    size_t bytes;                    /* of it on the wire */
    int64_t number;                  /* among all that was added */
    int64_t artifact;                /* its number, or -1 */
    bool waiting;                    /* an artifact that is not uploaded */
    bool sent;                       /* part of the report on its way */
};

static struct ha_wire_attempt_event *event_of(const struct report_entry *entry)
{
    return &entry->message->body.report.events[0];
}

static bool is_cell(const struct report_entry *entry)
{
    return event_of(entry)->kind == HA_WIRE_ATTEMPT_EVENT_CELL;
}

void reports_init(struct reports *reports)
{
    *reports = (struct reports){.sequence = 1};
    reports->last = &reports->first;
}

static void free_entry(struct report_entry *entry)
{
    ha_wire_message_destroy(entry->message);
    free(entry);
}

static void find_last(struct reports *reports)
{
    reports->last = &reports->first;
    while (*reports->last)
        reports->last = &(*reports->last)->next;
}

void reports_clear(struct reports *reports)
{
    while (reports->first) {
        struct report_entry *next = reports->first->next;

        free_entry(reports->first);
        reports->first = next;
    }
    reports->last = &reports->first;
    reports->on_its_way = false;
}

bool reports_is_empty(const struct reports *reports)
{
    return !reports->first;
}

int64_t reports_oldest(const struct reports *reports)
{
    return reports->first ? reports->first->number : reports->n_added;
}

/* A report of this one event, so that what is kept can be sent. */
static int copy_event(const struct ha_wire_attempt_event *event,
                      struct ha_wire_message **ret_message, size_t *ret_bytes, struct ha_error *err)
{
    struct ha_wire_attempt_event one = *event;
    const struct ha_wire_message message = {.protocol = HA_WIRE_PROTOCOL,
                                            .kind = HA_WIRE_REPORT,
                                            .body.report = {.events = &one, .n_events = 1}};

    return ha_wire_copy(&message, ret_message, ret_bytes, err);
}

static int add(struct reports *reports, const struct ha_wire_attempt_event *event, int64_t artifact,
               struct ha_error *err)
{
    struct report_entry *entry = ha_calloc(1, sizeof(*entry));
    int r;

    if (!entry)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = copy_event(event, &entry->message, &entry->bytes, err);
    if (r < 0) {
        free(entry);
        return r;
    }
    entry->number = reports->n_added++;
    entry->artifact = artifact;
    entry->waiting = artifact >= 0;
    *reports->last = entry;
    reports->last = &entry->next;
    return 0;
}

int reports_add(struct reports *reports, const struct ha_wire_attempt_event *event,
                struct ha_error *err)
{
    return add(reports, event, -1, err);
}

int reports_add_artifact(struct reports *reports, const struct ha_wire_attempt_artifact *artifact,
                         int64_t *ret_number, struct ha_error *err)
{
    const struct ha_wire_attempt_event event = {.kind = HA_WIRE_ATTEMPT_EVENT_ARTIFACT,
                                                .event.artifact = *artifact};
    int r = add(reports, &event, reports->n_artifacts, err);

    if (r == 0)
        *ret_number = reports->n_artifacts++;
    return r;
}

int reports_artifact_ready(struct reports *reports, int64_t number, const char *sha256,
                           int64_t size)
{
    for (struct report_entry *entry = reports->first; entry; entry = entry->next) {
        struct ha_wire_attempt_event event;
        struct ha_wire_message *message;
        int r;

        if (entry->artifact != number)
            continue;
        event = *event_of(entry);
        event.event.artifact.sha256 = sha256;
        event.event.artifact.size = size;
        r = copy_event(&event, &message, &entry->bytes, NULL);
        if (r < 0)
            return r;
        ha_wire_message_destroy(entry->message);
        entry->message = message;
        entry->waiting = false;
        return 0;
    }
    return -ENOENT;
}

bool reports_artifact_waits(const struct reports *reports)
{
    for (const struct report_entry *entry = reports->first; entry; entry = entry->next) {
        if (entry->waiting)
            return true;
    }
    return false;
}

void reports_drop_artifact(struct reports *reports, int64_t number)
{
    bool behind = false;

    for (struct report_entry **at = &reports->first; *at;) {
        struct report_entry *entry = *at;
        bool drop = entry->artifact == number || (behind && !entry->sent && is_cell(entry));

        behind = behind || entry->artifact == number;
        if (drop) {
            *at = entry->next;
            free_entry(entry);
        } else {
            at = &entry->next;
        }
    }
    find_last(reports);
    reports->on_its_way = false; /* a report that lost all it held is none */
    for (const struct report_entry *entry = reports->first; entry; entry = entry->next)
        reports->on_its_way = reports->on_its_way || entry->sent;
}

bool reports_artifact_missing(struct reports *reports, const char *sha256, int64_t *ret_number)
{
    for (struct report_entry *entry = reports->first; entry; entry = entry->next) {
        if (entry->artifact < 0 || entry->waiting ||
            strcmp(event_of(entry)->event.artifact.sha256, sha256) != 0)
            continue;
        entry->waiting = true;
        *ret_number = entry->artifact;
        return true;
    }
    return false;
}

/* May the end of something not go before all artifacts ahead of it? */
static bool is_barrier(const struct report_entry *entry)
{
    return is_cell(entry) || event_of(entry)->kind == HA_WIRE_ATTEMPT_EVENT_END;
}

/* Mark what the next report holds. */
static void choose(struct reports *reports, int64_t max_events, size_t max_bytes)
{
    bool artifact_waits = false;
    size_t bytes = 0;
    int64_t n = 0;

    for (struct report_entry *entry = reports->first; entry && n < max_events;
         entry = entry->next) {
        if (entry->waiting) {
            artifact_waits = true;
            continue;
        }
        if ((artifact_waits && is_barrier(entry)) || (n > 0 && bytes + entry->bytes > max_bytes))
            break;
        entry->sent = true;
        bytes += entry->bytes;
        n++;
    }
    reports->on_its_way = n > 0;
}

bool reports_next(struct reports *reports, struct ha_wire_attempt_event *events, int64_t max_events,
                  size_t max_bytes, int64_t *ret_n)
{
    int64_t n = 0;

    if (!reports->on_its_way)
        choose(reports, max_events, max_bytes);
    for (const struct report_entry *entry = reports->first; entry; entry = entry->next) {
        if (!entry->sent)
            continue;
        if (entry->waiting) /* it must be uploaded again first */
            return false;
        events[n++] = *event_of(entry);
    }
    *ret_n = n;
    return n > 0;
}

bool reports_acknowledge(struct reports *reports, uint64_t sequence, bool *ret_ended)
{
    bool ended = false;

    if (!reports->on_its_way || sequence < reports->sequence)
        return false;
    for (struct report_entry **at = &reports->first; *at;) {
        struct report_entry *entry = *at;

        if (!entry->sent) {
            at = &entry->next;
            continue;
        }
        ended = ended || event_of(entry)->kind == HA_WIRE_ATTEMPT_EVENT_END;
        *at = entry->next;
        free_entry(entry);
    }
    find_last(reports);
    reports->on_its_way = false;
    reports->sequence++;
    *ret_ended = ended;
    return true;
}
