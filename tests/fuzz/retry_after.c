/* Values of the Retry-After header, and evaluators' addresses. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "judge-worker/retry_after.h"
#include "judge-worker/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text((struct fuzz_input){data, size}), *host = NULL, *url = NULL;
    int64_t wait = ha_judge_retry_after(text, 1760000000000);
    struct ha_error err = {0};

    FUZZ_CHECK(wait >= -1 && wait <= (int64_t)HA_JUDGE_RETRY_AFTER_MAX_S * 1000);
    if (fuzz_result(ha_judge_url_host(text, &host, &err), &err) == 0) {
        FUZZ_CHECK(host[0] != '\0');
        (void)ha_judge_host_is_loopback(host);
        memset(&err, 0, sizeof err);
        if (fuzz_result(ha_judge_url_chat(text, &url, &err), &err) == 0)
            FUZZ_CHECK(strstr(url, "/chat/completions"));
    }
    (void)ha_judge_url_exposes_key(text);
    free(text);
    free(host);
    free(url);
    return 0;
}
