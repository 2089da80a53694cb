/* Values as --set and grids write them: the first byte chooses the row. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory_use.h"
#include "common/conf/blocks.h"
#include "common/conf/sweep.h"

enum { MAX_BYTES = 4096 };

static const struct ha_section *const sections[] = {
    &ha_sweep_general_section,  &ha_sweep_model_section,    &ha_sweep_strategy_section,
    &ha_sweep_data_section,     &ha_sweep_train_section,    &ha_sweep_probe_section,
    &ha_sweep_generate_section, &ha_sweep_judge_section,    &ha_sweep_resources_section,
    &ha_sweep_retry_section,    &ha_sweep_schedule_section, &ha_sweep_notify_section,
};

/* A value that was taken is written, and that text is taken and written the same. */
static void set_row(const struct ha_section *section, const struct ha_setting *row,
                    const char *text)
{
    static _Alignas(16) char values[MAX_BYTES], again[MAX_BYTES];
    struct ha_error err = {0};
    char *first, *second;

    FUZZ_CHECK(section->bytes <= MAX_BYTES);
    memset(values, 0, section->bytes);
    memset(again, 0, section->bytes);
    FUZZ_CHECK(ha_section_init(section, values, &err) == 0);
    FUZZ_CHECK(ha_section_init(section, again, &err) == 0);
    if (fuzz_result(ha_section_set(section, row, text, "--set", values, &err), &err) == 0) {
        first = ha_section_text(row, values);
        FUZZ_CHECK(first);
        FUZZ_CHECK(fuzz_result(ha_section_set(section, row, first, "--set", again, &err), &err) ==
                   0);
        second = ha_section_text(row, again);
        FUZZ_CHECK(second && strcmp(first, second) == 0);
        free(first);
        free(second);
    }
    ha_section_clear(section, values);
    ha_section_clear(section, again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    const struct ha_section *section =
        sections[fuzz_byte(&input) % (sizeof sections / sizeof sections[0])];
    const struct ha_setting *row = &section->rows[fuzz_byte(&input) % section->count];
    char *text = fuzz_text(input);
    struct ha_layers layers = {0};
    struct ha_error err = {0};
    int64_t bytes = 0;

    set_row(section, row, text);
    if (fuzz_result(ha_memory_parse("amount", text, &bytes, &err), &err) == 0)
        FUZZ_CHECK(bytes >= 0);
    memset(&err, 0, sizeof err);
    if (fuzz_result(ha_layers_parse(text, 0, &layers, &err), &err) == 0) {
        FUZZ_CHECK(layers.count > 0 && layers.count <= HA_LAYERS_MAX);
        ha_layers_clear(&layers);
    }
    free(text);
    return 0;
}
