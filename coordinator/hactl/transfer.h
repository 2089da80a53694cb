/* transfer.h - files to and from the coordinator's artifact store */
#ifndef HA_COORDINATOR_HACTL_TRANSFER_H
#define HA_COORDINATOR_HACTL_TRANSFER_H

#include <stdint.h>

struct ha_error;
struct ha_link;

/* Upload a file whose digest and size are known; what is there already is not
 * sent again, an upload that was cut goes on where it stopped. */
int ha_transfer_put(struct ha_link *link, const char *path, const char *sha256, int64_t size,
                    struct ha_error *err);

/* Download an artifact, check its digest, and put it at path atomically. */
int ha_transfer_get(struct ha_link *link, const char *sha256, const char *path,
                    struct ha_error *err);

#endif
