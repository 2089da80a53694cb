#include "worker/daemon/keeping.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/error.h"
#include "common/base/memory_use.h"
#include "common/conf/daemon.h"

static int open_holdings(struct keeping *keeping, struct ha_error *err)
{
    const struct ha_worker_config *config = keeping->options.config;
    int64_t disk = 1, cache = 1;
    int r = ha_memory_parse("load_disk", config->load_disk, &disk, err);

    if (r == 0)
        r = ha_memory_parse("load_cache", config->load_cache, &cache, err);
    if (r == 0 && (disk < 1 || cache < 1))
        r = ha_error_set(err, EINVAL, "load_disk and load_cache have to be above 0");
    return r < 0 ? r
                 : holdings_create(&(struct holding_speeds){(double)disk, (double)cache},
                                   &keeping->holdings, err);
}

int keeping_open(const struct keeping_options *options, struct keeping *keeping,
                 struct ha_error *err)
{
    const struct ha_worker_config *config = options->config;
    /* Attempts share a memory where no GPU is given to each. */
    const struct residents_options residents = {.loop = options->loop,
                                                .rules = {.slots = config->slots,
                                                          .keep_ms = config->keep_model_s * 1000,
                                                          .shared = options->devices == NULL},
                                                .devices = options->devices,
                                                .changed = options->changed,
                                                .context = options->context};
    int r;

    keeping->options = *options;
    r = residents_create(&residents, &keeping->residents, err);
    return r < 0 ? r : open_holdings(keeping, err);
}

void keeping_close(struct keeping *keeping)
{
    residents_destroy(keeping->residents);
    holdings_destroy(keeping->holdings);
}

void keeping_set_devices(struct keeping *keeping, struct ha_devices *devices)
{
    keeping->options.devices = devices;
    residents_set_devices(keeping->residents, devices);
}

/* By a process that waits; with one slot, by the one that is at work, which a next job waits for.
 */
static bool is_loaded(void *context, const char *path, const char *digest)
{
    const struct keeping *keeping = context;
    const struct keeping_options *options = &keeping->options;
    char *key = resident_key(path, digest);
    bool loaded = key && residents_have(keeping->residents, key);

    free(key);
    return loaded || (options->config->slots == 1 && residents_keeps(keeping->residents) &&
                      options->works_with(options->context, path, digest));
}

void keeping_tell(struct keeping *keeping, struct ha_wire_heartbeat *beat)
{
    holdings_tell(keeping->holdings, is_loaded, keeping, beat);
}
