/* Texts of evaluators: sixteen scores, or a fault in words. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/utf8.h"
#include "common/conf/json.h"
#include "judge-worker/json_scan.h"
#include "judge-worker/parser.h"

/* What the scanner gives out is JSON for the strict parser too, unless a name stands twice. */
static void check_scan(const char *text, size_t size)
{
    struct ha_json *json = NULL;
    struct ha_error err = {0};
    struct ha_buffer out;
    unsigned mends = 0;
    size_t end = 0;

    ha_buffer_init(&out, 0);
    if (ha_judge_scan(text, size, 0, &out, &end, &mends) == HA_JUDGE_SCAN_VALUE) {
        int r = ha_json_parse(ha_buffer_text(&out), out.size, "scanned", &json, &err);

        FUZZ_CHECK(end <= size);
        FUZZ_CHECK(r == 0 || strstr(err.text, "duplicate"));
        ha_json_destroy(json);
    }
    ha_buffer_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ha_judge_scores scores;
    struct ha_error err = {0};
    int r = ha_judge_parse((const char *)data, size, &scores, &err);

    FUZZ_CHECK(fuzz_result(r, &err) == 0 || r == -EBADMSG);
    if (r == 0) {
        for (int i = 0; i < HA_DIMENSIONS; i++) {
            FUZZ_CHECK(scores.value[i] >= 1 && scores.value[i] <= 5);
            FUZZ_CHECK(scores.reason[i] && strlen(scores.reason[i]) <= HA_JUDGE_REASON_BYTES);
            FUZZ_CHECK(ha_utf8_valid(scores.reason[i], strlen(scores.reason[i])) ==
                       strlen(scores.reason[i]));
        }
        ha_judge_scores_clear(&scores);
    }
    check_scan((const char *)data, size);
    return 0;
}
