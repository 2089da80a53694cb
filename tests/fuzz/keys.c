/* Key files, the allow-list's entries, and endpoints. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/net/curve.h"
#include "common/net/socket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_file("input.pub", data, size);
    char *text = fuzz_text((struct fuzz_input){data, size}), public_key[HA_CURVE_KEY_BYTES];
    struct ha_allow_list *list = NULL;
    struct ha_curve_key key;
    enum ha_net_role role;
    struct ha_error err = {0};

    if (fuzz_result(ha_curve_public_load(path, public_key, &role, &err), &err) == 0)
        FUZZ_CHECK(strlen(public_key) == HA_CURVE_KEY_BYTES - 1);
    if (fuzz_result(ha_curve_key_load(path, &key, &err), &err) == 0)
        FUZZ_CHECK(strlen(key.secret_key) == HA_CURVE_KEY_BYTES - 1);
    if (fuzz_result(ha_allow_list_load(fuzz_folder(), &list, &err), &err) == 0) {
        FUZZ_CHECK(list->n_entries == 1);
        FUZZ_CHECK(ha_allow_list_find(list, public_key) == list->entries);
        (void)ha_allow_list_find(list, text);
        ha_allow_list_destroy(list);
    }
    for (int i = 0; i < 4; i++)
        (void)fuzz_result(ha_endpoint_check(text, i & 1, i & 2, &err), &err);
    free(text);
    return 0;
}
