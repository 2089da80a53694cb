/* coordinator.toml, worker.toml, judge.toml: the first byte says which. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/conf/daemon.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    int which = fuzz_byte(&input) % 3;
    const char *path = fuzz_file("daemon.toml", input.at, input.size);
    struct ha_error err = {0};
    struct ha_coordinator_config coordinator;
    struct ha_worker_config worker;
    struct ha_judge_config judge;

    if (which == 0 &&
        fuzz_result(ha_coordinator_config_load(path, NULL, 0, &coordinator, &err), &err) == 0)
        ha_coordinator_config_clear(&coordinator);
    if (which == 1 && fuzz_result(ha_worker_config_load(path, NULL, 0, &worker, &err), &err) == 0)
        ha_worker_config_clear(&worker);
    if (which == 2 && fuzz_result(ha_judge_config_load(path, NULL, 0, &judge, &err), &err) == 0)
        ha_judge_config_clear(&judge);
    return 0;
}
