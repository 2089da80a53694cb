/* check.h - does a backend multiply rightly? */
#ifndef HA_KERNELS_CHECK_H
#define HA_KERNELS_CHECK_H

struct ha_backend;
struct ha_error;

/* A product of matrices of small whole numbers, whose every sum is exact in any order and type,
 * against the same on the host.  Some milliseconds.  -EIO names the first element that differs. */
int ha_backend_check(struct ha_backend *backend, struct ha_error *err);

#endif
