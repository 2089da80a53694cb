/* gc: remove what nothing needs any more */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "common/conf/settings.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/link.h"
#include "coordinator/hactl/output.h"
#include "coordinator/hactl/verbs.h"

/* --older-than reads as every duration in a file does. */
struct age {
    uint64_t given;
    int64_t older_s;
};

static const struct ha_setting age_rows[] = {{
    .key = "older-than",
    .type = HA_SETTING_DURATION,
    .offset = offsetof(struct age, older_s),
    .minimum = 3600,
    .maximum = 315360000,
    .source = HA_SOURCE_OURS,
    .help = "age",
}};
static const struct ha_section age_section = {"", age_rows, 1, sizeof(struct age)};

struct totals {
    bool json, dry_run;
    int64_t artifacts, bytes;
    struct ha_json *list;
};

static int tell(struct totals *t, const struct ha_wire_gc_reply *reply, struct ha_error *err)
{
    for (int64_t i = 0; i < reply->n_sha256; i++) {
        const char *why = i < reply->n_why ? reply->why[i] : "";
        struct ha_json *item;

        if (!t->json) {
            printf("%s %s: %s\n", t->dry_run ? "would remove" : "removed", reply->sha256[i], why);
            continue;
        }
        item = ha_json_new_object();
        if (ha_json_append(t->list, item) < 0 ||
            ha_json_set(item, "sha256", ha_json_new_string(reply->sha256[i])) < 0 ||
            ha_json_set(item, "why", ha_json_new_string(why)) < 0)
            return ha_error_set(err, ENOMEM, "hactl: out of memory");
    }
    t->artifacts += reply->artifacts;
    t->bytes += reply->bytes;
    return 0;
}

/* Slice by slice, as each reply says where the next begins. */
static int collect(struct ha_link *link, struct totals *t, int64_t older_ms, struct ha_error *err)
{
    char *phase = ha_strdup(""), *after = ha_strdup("");
    int r = 0;

    do {
        struct ha_wire_message request = {.kind = HA_WIRE_GC}, *reply;

        if (!phase || !after) {
            r = ha_error_set(err, ENOMEM, "hactl: out of memory");
            break;
        }
        request.body.gc = (struct ha_wire_gc){
            .dry_run = t->dry_run, .older_ms = older_ms, .phase = phase, .after = after};
        r = ha_link_call(link, &request, HA_WIRE_GC_REPLY, 0, &reply, err);
        if (r < 0)
            break;
        r = tell(t, &reply->body.gc_reply, err);
        free(phase);
        free(after);
        phase = ha_strdup(reply->body.gc_reply.phase);
        after = ha_strdup(reply->body.gc_reply.after);
        ha_wire_message_destroy(reply);
    } while (r == 0 && phase && phase[0]);
    free(phase);
    free(after);
    return r;
}

static int print(struct totals *t, struct ha_error *err)
{
    struct ha_json *json;

    if (!t->json) {
        printf("%" PRId64 " files, %" PRId64 " MiB %s\n", t->artifacts, t->bytes >> 20,
               t->dry_run ? "would be removed" : "removed");
        return 0;
    }
    json = ha_json_new_object();
    if (ha_json_set(json, "dry_run", ha_json_new_bool(t->dry_run)) < 0 ||
        ha_json_set(json, "files", ha_json_new_int(t->artifacts)) < 0 ||
        ha_json_set(json, "bytes", ha_json_new_int(t->bytes)) < 0 ||
        ha_json_set(json, "removed", t->list) < 0) {
        ha_json_destroy(json);
        json = NULL;
    }
    t->list = NULL;
    return ha_output_json(json, err);
}

static int run(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *text = ha_arguments_value(arguments, "older-than", NULL);
    struct totals t = {.json = ha_arguments_given(arguments, "json"),
                       .dry_run = ha_arguments_given(arguments, "dry-run"),
                       .list = ha_json_new_array()};
    struct ha_session *session = NULL;
    struct age age = {0};
    int r = t.list ? 0 : ha_error_set(err, ENOMEM, "hactl: out of memory");

    if (r == 0 && text)
        r = ha_section_set(&age_section, &age_rows[0], text, "--older-than", &age, err);
    if (r == 0)
        r = ha_session_open(arguments, &session, err);
    if (r == 0)
        r = collect(ha_session_link(session), &t, age.older_s * 1000, err);
    if (r == 0)
        r = print(&t, err);
    ha_json_destroy(t.list);
    ha_session_close(session);
    return r;
}

static const struct ha_option options[] = {
    {"dry-run", NULL, "say what would go and remove nothing"},
    {"older-than", "DURATION",
     "leave what was needed since (default: gc_after of the "
     "coordinator, 7 days; at least 1h)"},
    {"json", NULL, "print JSON"},
};

const struct ha_verb ha_verb_gc = {
    .name = "gc",
    .command =
        {
            .name = "hactl gc",
            .synopsis = "",
            .summary = "remove stored files that no cell, checkpoint, reference or sweep needs; "
                       "adapters and data files of sweeps stay",
            .example = "hactl gc --dry-run --older-than 24h",
            .options = options,
            .n_options = sizeof(options) / sizeof(options[0]),
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run,
};
