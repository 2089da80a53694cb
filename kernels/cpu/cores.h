/* cores.h - how many cores this process may use */
#ifndef HA_KERNELS_CPU_CORES_H
#define HA_KERNELS_CPU_CORES_H

/* The cores of its affinity mask, or fewer where its control group (version 2, itself
 * and its parents; or version 1) has a quota, rounded up; at least 1. */
int ha_cpu_cores(void);

/* Cores of a quota as the kernel writes it, rounded up; 0: none.  "200000 100000" -> 2,
 * "max 100000" -> 0. */
int ha_cpu_quota_parse(const char *text);

#endif
