/* nvml.h - what the NVIDIA driver's management library tells of the machine's GPUs
 *
 * The library is loaded at run time (libnvidia-ml.so.1; HA_NVML_LIBRARY names another), so that one
 * worker runs on machines with and without a driver.  Its few functions are declared here from
 * NVIDIA's published C interface, which keeps them across versions.  Calls can hang, for seconds or
 * for ever, when a GPU or the driver is in trouble: all of them, the first included, are made by a
 * thread that nothing waits for without a deadline (devices.c). */
#ifndef HA_WORKER_DAEMON_NVML_H
#define HA_WORKER_DAEMON_NVML_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;
struct ha_nvml;

enum { HA_DEVICE_NAME_BYTES = 96, HA_DEVICE_PROCESSES = 64, HA_DEVICES_LIMIT = 256 };

/* One GPU, or one MIG instance of a GPU that is split (the GPU itself is then not listed).  What
 * the driver does not tell is -1. */
struct ha_device_reading {
    char name[HA_DEVICE_NAME_BYTES];
    char uuid[HA_DEVICE_NAME_BYTES];     /* as CUDA_VISIBLE_DEVICES takes it; "" of a lost GPU */
    char gpu_uuid[HA_DEVICE_NAME_BYTES]; /* of a MIG instance: its GPU's; else as uuid */
    int64_t index;                       /* of the GPU, in the order of PCI addresses */
    bool is_mig;
    int64_t memory_total_bytes, memory_used_bytes;
    int64_t utilisation_percent, temperature_c;
    int64_t ecc_uncorrected; /* since the driver was loaded; of a MIG instance: its GPU's */
    int64_t xids;            /* that tell of broken hardware, since ha_nvml_open */
    int64_t last_xid;        /* of them */
    int64_t pids[HA_DEVICE_PROCESSES]; /* processes that compute on it */
    int64_t n_pids;                    /* -1: not told */
    char trouble[96];                  /* why it cannot be read at all; "": it can */
};

/* Load the library and start it.
 * -ENOENT: there is no such library (no driver); -ENODEV: it has none to tell of, as when the
 * driver is not loaded or of another version than the library. */
int ha_nvml_open(struct ha_nvml **ret_nvml, struct ha_error *err);
void ha_nvml_close(struct ha_nvml *nvml);

/* Find the devices that there are now and read them; readings has room for HA_DEVICES_LIMIT.
 * Returns how many.  MIG instances that came or went are seen at once; GPUs that appeared or fell
 * off only with anew, which has the driver look from the beginning.  XIDs that were counted stay
 * with their devices.  Trouble of a device is in its reading; of a GPU that is lost nothing but the
 * index may be known.  While the driver does not work at all, the devices that were there last are
 * told with that as their trouble. */
int64_t ha_nvml_read(struct ha_nvml *nvml, bool anew, struct ha_device_reading *readings);

/* XIDs that programs cause by themselves (illegal addresses, being killed), or that tell of a
 * repair that succeeded, are no trouble of the device: 8, 13, 31, 43, 45, 63, 68. */
bool ha_nvml_xid_is_trouble(int64_t xid);

#endif
