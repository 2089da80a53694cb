/* job.json, which the coordinator writes and an attempt reads. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "worker/attempt/job_spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file("job.json", data, size);
    struct ha_job_spec *spec = NULL;
    struct ha_error err = {0};

    if (fuzz_result(ha_job_spec_load(path, &spec, &err), &err) < 0)
        return 0;
    FUZZ_CHECK(spec->model_path && spec->prompt_template && spec->n_cells > 0);
    ha_job_spec_destroy(spec);
    return 0;
}
