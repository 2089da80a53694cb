/* The spool of evaluators' replies as a crash or a bad disk may leave it. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/path.h"
#include "judge-worker/record.h"
#include "judge-worker/spool.h"

/* What was read can be written and read again. */
static int offer(void *context, const struct ha_judge_record *record, struct ha_error *err)
{
    struct ha_judge_record again;
    struct ha_buffer line;

    (void)context;
    ha_buffer_init(&line, 0);
    FUZZ_CHECK(fuzz_result(ha_judge_record_encode(record, &line, err), err) == 0);
    FUZZ_CHECK(fuzz_result(ha_judge_record_decode(ha_buffer_text(&line), line.size, &again, err),
                           err) == 0);
    FUZZ_CHECK(again.call == record->call && again.item == record->item);
    ha_judge_record_clear(&again);
    ha_buffer_clear(&line);
    return 0;
}

static int no_offer(void *context, const struct ha_judge_record *record, struct ha_error *err)
{
    (void)context;
    (void)record;
    (void)err;
    return 0;
}

/* A second start finds what the first one left, and has nothing to say about it. */
static void open_again(const char *dir, int64_t count)
{
    struct ha_judge_spool *spool = NULL;
    struct ha_error err = {0};
    char *note = NULL;

    FUZZ_CHECK(fuzz_result(ha_judge_spool_open(dir, no_offer, NULL, &spool, &note, &err), &err) ==
               0);
    FUZZ_CHECK(!note && ha_judge_spool_count(spool) == count);
    ha_judge_spool_close(spool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ha_judge_record record;
    struct ha_judge_spool *spool = NULL;
    struct ha_error err = {0};
    char *note = NULL, *dir = ha_path_join(fuzz_folder(), "spool");

    if (fuzz_result(ha_judge_record_decode((const char *)data, size, &record, &err), &err) == 0) {
        (void)offer(NULL, &record, &err);
        ha_judge_record_clear(&record);
    }
    FUZZ_CHECK(dir && ha_path_make_dirs(dir, 0700, NULL) == 0);
    (void)fuzz_file("spool/replies.spool", data, size);
    memset(&err, 0, sizeof err);
    if (fuzz_result(ha_judge_spool_open(dir, offer, NULL, &spool, &note, &err), &err) == 0) {
        int64_t count = ha_judge_spool_count(spool);

        ha_judge_spool_close(spool);
        open_again(dir, count);
    }
    free(note);
    (void)ha_path_remove_tree(dir, NULL);
    free(dir);
    return 0;
}
