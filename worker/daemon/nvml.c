#include "worker/daemon/nvml.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/memory.h"

/* ---- the part of NVML's interface that is used, as published --------------------------------- */

typedef struct nvml_device *nvml_device; /* opaque there too */
typedef struct nvml_event_set *nvml_event_set;

enum {
    NVML_SUCCESS = 0,
    NVML_TEMPERATURE_GPU = 0,
    NVML_ECC_UNCORRECTED = 1,
    NVML_ECC_VOLATILE = 0,
    NVML_MIG_ENABLED = 1,
    NVML_EVENT_XID = 8
};

static const unsigned any_instance = 0xFFFFFFFF;

struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml_utilisation {
    unsigned gpu, memory;
};

struct nvml_event {
    nvml_device device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

struct nvml_process {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};

struct nvml_calls {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int code);
    int (*count)(unsigned *count);
    int (*by_index)(unsigned index, nvml_device *device);
    int (*name)(nvml_device device, char *text, unsigned bytes);
    int (*uuid)(nvml_device device, char *text, unsigned bytes);
    int (*memory)(nvml_device device, struct nvml_memory *memory);
    /* What follows is missing in old drivers, or on some devices. */
    int (*utilisation)(nvml_device device, struct nvml_utilisation *utilisation);
    int (*temperature)(nvml_device device, int sensor, unsigned *celsius);
    int (*ecc)(nvml_device device, int type, int counter, unsigned long long *count);
    int (*processes)(nvml_device device, unsigned *count, struct nvml_process *processes);
    int (*event_set)(nvml_event_set *set);
    int (*event_register)(nvml_device device, unsigned long long types, nvml_event_set set);
    int (*event_wait)(nvml_event_set set, struct nvml_event *event, unsigned wait_ms);
    int (*event_free)(nvml_event_set set);
    int (*mig_mode)(nvml_device device, unsigned *now, unsigned *pending);
    int (*mig_count)(nvml_device device, unsigned *count);
    int (*mig_by_index)(nvml_device device, unsigned index, nvml_device *instance);
    int (*mig_instance)(nvml_device device, unsigned *id);
};

#define CALL(member, symbol, is_needed)                                                            \
    {                                                                                              \
        .name = symbol, .offset = offsetof(struct nvml_calls, member), .needed = is_needed         \
    }

static const struct {
    const char *name;
    size_t offset;
    bool needed;
} symbols[] = {
    CALL(init, "nvmlInit_v2", true),
    CALL(shutdown, "nvmlShutdown", true),
    CALL(error_string, "nvmlErrorString", true),
    CALL(count, "nvmlDeviceGetCount_v2", true),
    CALL(by_index, "nvmlDeviceGetHandleByIndex_v2", true),
    CALL(name, "nvmlDeviceGetName", true),
    CALL(uuid, "nvmlDeviceGetUUID", true),
    CALL(memory, "nvmlDeviceGetMemoryInfo", true),
    CALL(utilisation, "nvmlDeviceGetUtilizationRates", false),
    CALL(temperature, "nvmlDeviceGetTemperature", false),
    CALL(ecc, "nvmlDeviceGetTotalEccErrors", false),
    CALL(processes, "nvmlDeviceGetComputeRunningProcesses_v3", false),
    CALL(event_set, "nvmlEventSetCreate", false),
    CALL(event_register, "nvmlDeviceRegisterEvents", false),
    CALL(event_wait, "nvmlEventSetWait_v2", false),
    CALL(event_free, "nvmlEventSetFree", false),
    CALL(mig_mode, "nvmlDeviceGetMigMode", false),
    CALL(mig_count, "nvmlDeviceGetMaxMigDeviceCount", false),
    CALL(mig_by_index, "nvmlDeviceGetMigDeviceHandleByIndex", false),
    CALL(mig_instance, "nvmlDeviceGetGpuInstanceId", false),
};

struct device {
    nvml_device handle, gpu;        /* gpu: the same, or that of a MIG instance; NULL: lost */
    int lost_code;                  /* of a GPU that is lost */
    unsigned instance;              /* of MIG */
    struct ha_device_reading fixed; /* what does not change, and the XIDs */
};

/* XIDs of a device, also while it is away. */
struct xids {
    char uuid[HA_DEVICE_NAME_BYTES];
    int64_t count, last;
};

struct ha_nvml {
    void *library;
    struct nvml_calls calls;
    bool ready;
    char down[96];         /* why it is not ready */
    nvml_event_set events; /* NULL: none */
    struct device devices[HA_DEVICES_LIMIT];
    int64_t n_devices;
    struct xids xids[HA_DEVICES_LIMIT]; /* a ring */
    int64_t n_xids;                     /* ever */
};

/* ---- starting and finding
 * ------------------------------------------------------------------------------------
 */

static int load(struct ha_nvml *nvml, struct ha_error *err)
{
    const char *given = getenv("HA_NVML_LIBRARY");
    const char *name = given && given[0] ? given : "libnvidia-ml.so.1";

    nvml->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!nvml->library)
        return ha_error_set(err, ENOENT, "no GPU driver's library: %s", dlerror());
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *symbol = dlsym(nvml->library, symbols[i].name);

        if (!symbol && symbols[i].needed)
            return ha_error_set(err, ENODEV, "%s has no %s: the driver is too old", name,
                                symbols[i].name);
        memcpy((char *)&nvml->calls + symbols[i].offset, &symbol, sizeof(symbol));
    }
    return 0;
}

/* NULL: none were counted. */
static struct xids *find_xids(struct ha_nvml *nvml, const char *uuid)
{
    for (int64_t i = 0; i < nvml->n_xids && i < HA_DEVICES_LIMIT; i++) {
        if (strcmp(nvml->xids[i].uuid, uuid) == 0)
            return &nvml->xids[i];
    }
    return NULL;
}

static void count_xid(struct ha_nvml *nvml, struct ha_device_reading *fixed, int64_t xid)
{
    struct xids *xids = find_xids(nvml, fixed->uuid);

    if (!xids) {
        xids = &nvml->xids[nvml->n_xids++ % HA_DEVICES_LIMIT];
        *xids = (struct xids){.count = 0};
        memcpy(xids->uuid, fixed->uuid, sizeof(xids->uuid));
    }
    fixed->xids = ++xids->count;
    fixed->last_xid = xids->last = xid;
}

static struct device *add_device(struct ha_nvml *nvml, nvml_device handle, nvml_device gpu,
                                 int64_t index)
{
    struct device *device = &nvml->devices[nvml->n_devices];
    const struct xids *xids;

    if (nvml->n_devices == HA_DEVICES_LIMIT)
        return NULL;
    nvml->n_devices++;
    *device = (struct device){.handle = handle, .gpu = gpu, .instance = any_instance};
    device->fixed.index = index;
    device->fixed.is_mig = handle != gpu;
    if (!handle)
        return device;
    (void)nvml->calls.name(handle, device->fixed.name, HA_DEVICE_NAME_BYTES);
    (void)nvml->calls.uuid(handle, device->fixed.uuid, HA_DEVICE_NAME_BYTES);
    (void)nvml->calls.uuid(gpu, device->fixed.gpu_uuid, HA_DEVICE_NAME_BYTES);
    xids = find_xids(nvml, device->fixed.uuid);
    if (xids) {
        device->fixed.xids = xids->count;
        device->fixed.last_xid = xids->last;
    }
    return device;
}

static bool is_split(const struct ha_nvml *nvml, nvml_device gpu)
{
    unsigned now = 0, pending = 0;

    return nvml->calls.mig_mode && nvml->calls.mig_count && nvml->calls.mig_by_index &&
           nvml->calls.mig_mode(gpu, &now, &pending) == NVML_SUCCESS && now == NVML_MIG_ENABLED;
}

static void find_instances(struct ha_nvml *nvml, nvml_device gpu, int64_t index)
{
    unsigned most = 0;

    (void)nvml->calls.mig_count(gpu, &most);
    for (unsigned i = 0; i < most; i++) {
        nvml_device handle;
        struct device *device;

        if (nvml->calls.mig_by_index(gpu, i, &handle) != NVML_SUCCESS)
            continue; /* a place that is not taken */
        device = add_device(nvml, handle, gpu, index);
        if (device && nvml->calls.mig_instance)
            (void)nvml->calls.mig_instance(handle, &device->instance);
    }
}

static void find_devices(struct ha_nvml *nvml)
{
    const struct nvml_calls *calls = &nvml->calls;
    unsigned count = 0;

    if (calls->count(&count) != NVML_SUCCESS)
        return;
    nvml->n_devices = 0;
    for (unsigned i = 0; i < count; i++) {
        nvml_device gpu = NULL;
        struct device *device;
        int code = calls->by_index(i, &gpu);

        if (code != NVML_SUCCESS) {
            device = add_device(nvml, NULL, NULL, i);
            if (device)
                device->lost_code = code;
        } else if (is_split(nvml, gpu)) {
            find_instances(nvml, gpu, i);
        } else {
            (void)add_device(nvml, gpu, gpu, i);
        }
    }
}

static void open_events(struct ha_nvml *nvml)
{
    const struct nvml_calls *calls = &nvml->calls;
    unsigned count = 0;
    nvml_device gpu;

    if (!calls->event_set || !calls->event_register || !calls->event_wait || !calls->event_free ||
        calls->event_set(&nvml->events) != NVML_SUCCESS)
        nvml->events = NULL;
    if (!nvml->events || calls->count(&count) != NVML_SUCCESS)
        return;
    for (unsigned i = 0; i < count; i++) {
        if (calls->by_index(i, &gpu) == NVML_SUCCESS)
            (void)calls->event_register(gpu, NVML_EVENT_XID, nvml->events);
    }
}

static int start(struct ha_nvml *nvml, struct ha_error *err)
{
    const struct nvml_calls *calls = &nvml->calls;
    unsigned count = 0;
    int code = calls->init();

    if (code != NVML_SUCCESS) {
        (void)snprintf(nvml->down, sizeof(nvml->down), "%s", calls->error_string(code));
        return ha_error_set(err, ENODEV, "the GPU driver does not work: %s", nvml->down);
    }
    nvml->ready = true;
    code = calls->count(&count);
    if (code != NVML_SUCCESS || count == 0)
        return ha_error_set(err, ENODEV, "the GPU driver names no device%s%s", code ? ": " : "",
                            code ? calls->error_string(code) : "");
    open_events(nvml);
    return 0;
}

static void stop(struct ha_nvml *nvml)
{
    if (nvml->events)
        (void)nvml->calls.event_free(nvml->events);
    if (nvml->ready)
        (void)nvml->calls.shutdown();
    nvml->events = NULL;
    nvml->ready = false;
}

int ha_nvml_open(struct ha_nvml **ret_nvml, struct ha_error *err)
{
    struct ha_nvml *nvml = ha_calloc(1, sizeof(*nvml));
    int r;

    if (!nvml)
        return ha_error_set(err, ENOMEM, "out of memory");
    r = load(nvml, err);
    if (r == 0)
        r = start(nvml, err);
    if (r < 0) {
        ha_nvml_close(nvml);
        return r;
    }
    *ret_nvml = nvml;
    return 0;
}

void ha_nvml_close(struct ha_nvml *nvml)
{
    if (!nvml)
        return;
    stop(nvml);
    if (nvml->library)
        (void)dlclose(nvml->library);
    free(nvml);
}

/* ---- reading --------------------------------------------------------------------------------- */

bool ha_nvml_xid_is_trouble(int64_t xid)
{
    static const int64_t harmless[] = {8, 13, 31, 43, 45, 63, 68};

    for (size_t i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++) {
        if (harmless[i] == xid)
            return false;
    }
    return xid > 0;
}

/* Take the XIDs that lie ready; never waits. */
static void read_events(struct ha_nvml *nvml)
{
    struct nvml_event event;

    for (int taken = 0; nvml->events && taken < HA_DEVICES_LIMIT; taken++) {
        event = (struct nvml_event){.gpu_instance = any_instance};
        if (nvml->calls.event_wait(nvml->events, &event, 0) != NVML_SUCCESS)
            return;
        if (event.type != NVML_EVENT_XID || !ha_nvml_xid_is_trouble((int64_t)event.data))
            continue;
        for (int64_t i = 0; i < nvml->n_devices; i++) {
            struct device *device = &nvml->devices[i];

            if (device->gpu != event.device ||
                (device->fixed.is_mig && event.gpu_instance != any_instance &&
                 device->instance != any_instance && event.gpu_instance != device->instance))
                continue;
            count_xid(nvml, &device->fixed, (int64_t)event.data);
        }
    }
}

static void read_processes(const struct nvml_calls *calls, nvml_device handle,
                           struct ha_device_reading *reading)
{
    struct nvml_process processes[HA_DEVICE_PROCESSES];
    unsigned count = HA_DEVICE_PROCESSES;
    int code = calls->processes ? calls->processes(handle, &count, processes) : -1;

    reading->n_pids = -1;
    if (code != NVML_SUCCESS)
        return;
    reading->n_pids = count < HA_DEVICE_PROCESSES ? (int64_t)count : HA_DEVICE_PROCESSES;
    for (int64_t i = 0; i < reading->n_pids; i++)
        reading->pids[i] = processes[i].pid;
}

static void clear_numbers(struct ha_device_reading *reading)
{
    reading->memory_total_bytes = reading->memory_used_bytes = -1;
    reading->utilisation_percent = reading->temperature_c = reading->ecc_uncorrected = -1;
    reading->n_pids = -1;
}

static void read_device(const struct nvml_calls *calls, const struct device *device,
                        struct ha_device_reading *reading)
{
    struct nvml_memory memory = {0};
    struct nvml_utilisation utilisation;
    unsigned long long count;
    unsigned celsius;
    int code = device->handle ? calls->memory(device->handle, &memory) : device->lost_code;

    *reading = device->fixed;
    clear_numbers(reading);
    if (code != NVML_SUCCESS) {
        (void)snprintf(reading->trouble, sizeof(reading->trouble), "%s", calls->error_string(code));
        return;
    }
    reading->memory_total_bytes = (int64_t)memory.total;
    reading->memory_used_bytes = (int64_t)memory.used;
    if (calls->utilisation && calls->utilisation(device->handle, &utilisation) == NVML_SUCCESS)
        reading->utilisation_percent = utilisation.gpu;
    if (calls->temperature &&
        calls->temperature(device->gpu, NVML_TEMPERATURE_GPU, &celsius) == NVML_SUCCESS)
        reading->temperature_c = celsius;
    if (calls->ecc &&
        calls->ecc(device->gpu, NVML_ECC_UNCORRECTED, NVML_ECC_VOLATILE, &count) == NVML_SUCCESS)
        reading->ecc_uncorrected = (int64_t)count;
    read_processes(calls, device->handle, reading);
}

/* What was there when the driver was last well. */
static void tell_down(const struct ha_nvml *nvml, struct ha_device_reading *reading)
{
    clear_numbers(reading);
    (void)snprintf(reading->trouble, sizeof(reading->trouble), "%s", nvml->down);
}

int64_t ha_nvml_read(struct ha_nvml *nvml, bool anew, struct ha_device_reading *readings)
{
    if (nvml->ready)
        read_events(nvml);
    if (anew || !nvml->ready) {
        stop(nvml);
        (void)start(nvml, NULL);
    }
    if (nvml->ready)
        find_devices(nvml);
    for (int64_t i = 0; i < nvml->n_devices; i++) {
        if (nvml->ready) {
            read_device(&nvml->calls, &nvml->devices[i], &readings[i]);
            continue;
        }
        readings[i] = nvml->devices[i].fixed;
        tell_down(nvml, &readings[i]);
    }
    return nvml->n_devices;
}
