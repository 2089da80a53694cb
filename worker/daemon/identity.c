#include "worker/daemon/identity.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/base/error.h"
#include "common/base/memory.h"
#include "common/io/file.h"

int64_t identity_cores(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    return 1;
}

char *identity_machine(const char *host)
{
    char *text = NULL;
    size_t size;

    if (ha_file_read("/etc/machine-id", 256, &text, &size, NULL) == 0) {
        text[strcspn(text, "\n")] = '\0';
        if (text[0]) {
            char *both = ha_format("%s/%s", text, host); /* containers share the id */

            free(text);
            return both;
        }
    }
    free(text);
    return ha_strdup(host);
}

int identity_instance(char instance[IDENTITY_INSTANCE_BYTES], struct ha_error *err)
{
    uint8_t bytes[IDENTITY_INSTANCE_BYTES / 2];

    if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        return ha_error_set(err, errno, "no random numbers: %s", strerror(errno));
    for (size_t i = 0; i < sizeof(bytes); i++)
        (void)snprintf(instance + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}
