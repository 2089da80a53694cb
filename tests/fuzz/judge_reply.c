/* Bodies of evaluators' replies, from bytes to what the coordinator is told.
 * The first two bytes choose provider, HTTP status and how the transfer ended. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "judge-worker/outcome.h"

static const char *const providers[] = {"openai", "azure", "dashscope", "vllm", "generic"};
static const int statuses[] = {200, 200, 200, 0,   301, 400, 401, 402, 403,
                               404, 408, 413, 422, 429, 500, 502, 503, 529};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    uint8_t first = fuzz_byte(&input), second = fuzz_byte(&input);
    struct ha_judge_end end = {
        .provider = providers[first % (sizeof providers / sizeof providers[0])],
        .model = "model",
        .max_tokens = 100,
        .max_reasks = 2,
        .reasks = first >> 6,
        .transport =
            second < 200 ? HA_JUDGE_TRANSPORT_DONE : second % (HA_JUDGE_TRANSPORT_TOO_LONG + 1),
        .transport_text = second < 200 ? "" : "it broke off",
        .http_status = statuses[second % (sizeof statuses / sizeof statuses[0])],
        .raw = input.at,
        .raw_size = input.size};
    struct ha_judge_outcome outcome;
    struct ha_error err = {0};

    FUZZ_CHECK(fuzz_result(ha_judge_outcome_read(&end, &outcome, &err), &err) == 0);
    FUZZ_CHECK(outcome.kind == HA_JUDGE_SCORED || outcome.fault[0] != '\0');
    for (int i = 0; outcome.kind == HA_JUDGE_SCORED && i < HA_DIMENSIONS; i++)
        FUZZ_CHECK(outcome.scores.value[i] >= 1 && outcome.scores.value[i] <= 5);
    ha_judge_outcome_clear(&outcome);
    return 0;
}
