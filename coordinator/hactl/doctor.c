#include "coordinator/hactl/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/conf/json.h"
#include "coordinator/hactl/output.h"

enum { TEXT_BYTES = 512, SHOWN = 20 };

struct entry {
    enum ha_finding finding;
    char subject[128], text[TEXT_BYTES], mend[256];
    int64_t more; /* of the same subject and kind, that are not told */
};

struct ha_doctor {
    struct entry *entries;
    int64_t count, capacity, problems;
    bool failed; /* memory was short */
};

static const char *const names[] = {"ok", "note", "warning", "problem"};

int ha_doctor_create(struct ha_doctor **ret_doctor, struct ha_error *err)
{
    *ret_doctor = ha_calloc(1, sizeof(**ret_doctor));
    return *ret_doctor ? 0 : ha_error_set(err, ENOMEM, "hactl: out of memory");
}

void ha_doctor_destroy(struct ha_doctor *doctor)
{
    if (!doctor)
        return;
    free(doctor->entries);
    free(doctor);
}

/* The last entry of the same sort when so many are there that no more are told. */
static struct entry *full(struct ha_doctor *doctor, enum ha_finding finding, const char *subject)
{
    struct entry *last = NULL;
    int64_t n = 0;

    for (int64_t i = 0; i < doctor->count; i++) {
        struct entry *entry = &doctor->entries[i];

        if (entry->finding == finding && strcmp(entry->subject, subject) == 0) {
            last = entry;
            n++;
        }
    }
    return n >= SHOWN ? last : NULL;
}

void ha_doctor_say(struct ha_doctor *doctor, enum ha_finding finding, const char *subject,
                   const char *mend, const char *format, ...)
{
    struct entry *entry = full(doctor, finding, subject);
    void *array = doctor->entries;
    va_list args;

    doctor->problems += finding == HA_FINDING_PROBLEM;
    if (entry) {
        entry->more++;
        return;
    }
    if (ha_grow(&array, &doctor->capacity, doctor->count + 1, sizeof(*entry)) < 0) {
        doctor->failed = true;
        return;
    }
    doctor->entries = array;
    entry = &doctor->entries[doctor->count++];
    *entry = (struct entry){.finding = finding};
    (void)snprintf(entry->subject, sizeof(entry->subject), "%s", subject);
    (void)snprintf(entry->mend, sizeof(entry->mend), "%s", mend);
    va_start(args, format);
    (void)vsnprintf(entry->text, sizeof(entry->text), format, args);
    va_end(args);
}

static struct ha_json *to_json(const struct ha_doctor *doctor)
{
    struct ha_json *json = ha_json_new_array();
    int r = json ? 0 : -1;

    for (int64_t i = 0; r == 0 && i < doctor->count; i++) {
        const struct entry *entry = &doctor->entries[i];
        struct ha_json *item = ha_json_new_object();

        if (ha_json_append(json, item) < 0 ||
            ha_json_set(item, "finding", ha_json_new_string(names[entry->finding])) < 0 ||
            ha_json_set(item, "subject", ha_json_new_string(entry->subject)) < 0 ||
            ha_json_set(item, "text", ha_json_new_string(entry->text)) < 0 ||
            ha_json_set(item, "mend", ha_json_new_string(entry->mend)) < 0 ||
            ha_json_set(item, "more", ha_json_new_int(entry->more)) < 0)
            r = -1;
    }
    if (r < 0) {
        ha_json_destroy(json);
        return NULL;
    }
    return json;
}

int64_t ha_doctor_print(struct ha_doctor *doctor, bool json, struct ha_error *err)
{
    int r = 0;

    if (doctor->failed)
        return ha_error_set(err, ENOMEM, "hactl: out of memory");
    if (json)
        r = ha_output_json(to_json(doctor), err);
    for (int64_t i = 0; !json && i < doctor->count; i++) {
        const struct entry *entry = &doctor->entries[i];

        printf("%-8s %s: %s%s%s", names[entry->finding], entry->subject, entry->text,
               entry->mend[0] ? "; " : "", entry->mend);
        if (entry->more > 0)
            printf(" (and %" PRId64 " more)", entry->more);
        putchar('\n');
    }
    return r < 0 ? r : doctor->problems;
}
