/* fake_nvml.c - a management library that plays what a file says
 *
 * HA_FAKE_NVML names the file; it is read at every call, so that a test changes devices while
 * programs run.  A line is a GPU, in words NAME=VALUE, all optional:
 *
 *   uuid name total used util temp ecc xid xids pids lost mig
 *
 * total and used in MiB; xid is told once each time that xids grows; pids separated by commas;
 * lost=1: every call fails; mig=2: split into two instances, MIG-<uuid>-0 and -1.  A line "init=18"
 * lets nvmlInit_v2 fail so; a word "hang=1" lets every call hang until the file is without it,
 * "stuck=N" the first N calls.  A GPU more or less is seen after nvmlInit_v2 only.  Each thread has
 * a library of its own. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { GPUS = 16, PIDS = 8, LOST = 15, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10 };

struct gpu {
    char uuid[80], name[80];
    unsigned long long total, used, ecc;
    unsigned util, temp, xid, xids, lost, mig, pids[PIDS], n_pids;
};

struct handle {
    unsigned gpu;
    int instance; /* -1: the GPU */
};

struct event {
    struct handle *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

struct process {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};

static _Thread_local struct gpu gpus[GPUS];
static _Thread_local unsigned n_gpus, told[GPUS];
static _Thread_local int init_code, hangs, stuck;
static _Thread_local unsigned n_known; /* at nvmlInit_v2 */
static _Thread_local struct handle handles[GPUS][4];
static atomic_int n_stuck;

static void take_pids(struct gpu *gpu, char *text)
{
    for (char *save = NULL, *at = strtok_r(text, ",", &save); at && gpu->n_pids < PIDS;
         at = strtok_r(NULL, ",", &save))
        gpu->pids[gpu->n_pids++] = (unsigned)strtoul(at, NULL, 10);
}

static void take_word(struct gpu *gpu, char *word)
{
    char *value = strchr(word, '=');
    unsigned long long number;

    if (!value)
        return;
    *value++ = '\0';
    number = strtoull(value, NULL, 10);
    if (strcmp(word, "init") == 0)
        init_code = (int)number;
    else if (strcmp(word, "hang") == 0)
        hangs = number != 0;
    else if (strcmp(word, "stuck") == 0)
        stuck = (int)number;
    else if (strcmp(word, "uuid") == 0)
        snprintf(gpu->uuid, sizeof gpu->uuid, "%s", value);
    else if (strcmp(word, "name") == 0)
        snprintf(gpu->name, sizeof gpu->name, "%s", value);
    else if (strcmp(word, "total") == 0)
        gpu->total = number << 20;
    else if (strcmp(word, "used") == 0)
        gpu->used = number << 20;
    else if (strcmp(word, "ecc") == 0)
        gpu->ecc = number;
    else if (strcmp(word, "util") == 0)
        gpu->util = (unsigned)number;
    else if (strcmp(word, "temp") == 0)
        gpu->temp = (unsigned)number;
    else if (strcmp(word, "xid") == 0)
        gpu->xid = (unsigned)number;
    else if (strcmp(word, "xids") == 0)
        gpu->xids = (unsigned)number;
    else if (strcmp(word, "lost") == 0)
        gpu->lost = (unsigned)number;
    else if (strcmp(word, "mig") == 0)
        gpu->mig = (unsigned)number;
    else if (strcmp(word, "pids") == 0)
        take_pids(gpu, value);
}

static void look_again(void)
{
    const char *path = getenv("HA_FAKE_NVML");
    FILE *file = path ? fopen(path, "re") : NULL;
    char line[1024];

    if (!file)
        return;
    n_gpus = 0;
    init_code = hangs = stuck = 0;
    while (n_gpus < GPUS && fgets(line, sizeof line, file)) {
        struct gpu *gpu = &gpus[n_gpus];
        char *save = NULL;

        *gpu = (struct gpu){.uuid = "GPU-0000", .name = "Fake", .total = 1ULL << 34, .temp = 40};
        for (char *word = strtok_r(line, " \n", &save); word; word = strtok_r(NULL, " \n", &save))
            take_word(gpu, word);
        n_gpus += init_code == 0;
    }
    fclose(file);
}

static void refresh(void)
{
    const struct timespec pause = {.tv_nsec = 5000000};

    for (look_again(); hangs; look_again())
        (void)nanosleep(&pause, NULL);
    if (stuck == 0)
        atomic_store(&n_stuck, 0);
    else if (atomic_fetch_add(&n_stuck, 1) < stuck)
        for (; stuck; look_again())
            (void)nanosleep(&pause, NULL);
}

/* NULL: it is lost. */
static const struct gpu *look(const struct handle *handle)
{
    refresh();
    return handle->gpu < n_gpus && !gpus[handle->gpu].lost ? &gpus[handle->gpu] : NULL;
}

int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
    refresh();
    for (unsigned i = 0; i < n_gpus; i++)
        told[i] = gpus[i].xids;
    n_known = n_gpus;
    return init_code;
}

int nvmlShutdown(void);
int nvmlShutdown(void)
{
    return 0;
}

const char *nvmlErrorString(int code);
const char *nvmlErrorString(int code)
{
    return code == LOST ? "GPU is lost" : code == 18 ? "Driver/library version mismatch" : "Fails";
}

int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetCount_v2(unsigned *count)
{
    refresh();
    *count = n_known;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **device);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **device)
{
    if (index >= n_known)
        return NOT_FOUND;
    if (index >= n_gpus || gpus[index].lost)
        return LOST;
    handles[index][0] = (struct handle){index, -1};
    *device = &handles[index][0];
    return 0;
}

int nvmlDeviceGetName(struct handle *device, char *text, unsigned bytes);
int nvmlDeviceGetName(struct handle *device, char *text, unsigned bytes)
{
    const struct gpu *gpu = look(device);

    if (!gpu)
        return LOST;
    snprintf(text, bytes, "%s%s", gpu->name, device->instance >= 0 ? " MIG" : "");
    return 0;
}

int nvmlDeviceGetUUID(struct handle *device, char *text, unsigned bytes);
int nvmlDeviceGetUUID(struct handle *device, char *text, unsigned bytes)
{
    const struct gpu *gpu = look(device);

    if (!gpu)
        return LOST;
    if (device->instance >= 0)
        snprintf(text, bytes, "MIG-%s-%d", gpu->uuid, device->instance);
    else
        snprintf(text, bytes, "%s", gpu->uuid);
    return 0;
}

int nvmlDeviceGetMemoryInfo(struct handle *device, unsigned long long memory[3]);
int nvmlDeviceGetMemoryInfo(struct handle *device, unsigned long long memory[3])
{
    const struct gpu *gpu = look(device);

    if (!gpu)
        return LOST;
    memory[0] = gpu->total;
    memory[1] = gpu->total - gpu->used;
    memory[2] = gpu->used;
    return 0;
}

int nvmlDeviceGetUtilizationRates(struct handle *device, unsigned utilisation[2]);
int nvmlDeviceGetUtilizationRates(struct handle *device, unsigned utilisation[2])
{
    const struct gpu *gpu = look(device);

    if (!gpu)
        return LOST;
    if (device->instance >= 0)
        return NOT_SUPPORTED;
    utilisation[0] = gpu->util;
    utilisation[1] = 0;
    return 0;
}

int nvmlDeviceGetTemperature(struct handle *device, int sensor, unsigned *celsius);
int nvmlDeviceGetTemperature(struct handle *device, int sensor, unsigned *celsius)
{
    const struct gpu *gpu = look(device);

    if (!gpu || sensor != 0)
        return gpu ? NOT_SUPPORTED : LOST;
    *celsius = gpu->temp;
    return 0;
}

int nvmlDeviceGetTotalEccErrors(struct handle *device, int type, int counter,
                                unsigned long long *count);
int nvmlDeviceGetTotalEccErrors(struct handle *device, int type, int counter,
                                unsigned long long *count)
{
    const struct gpu *gpu = look(device);

    if (!gpu)
        return LOST;
    *count = type == 1 && counter == 0 ? gpu->ecc : 0;
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct handle *device, unsigned *count,
                                            struct process *processes);
int nvmlDeviceGetComputeRunningProcesses_v3(struct handle *device, unsigned *count,
                                            struct process *processes)
{
    const struct gpu *gpu = look(device);

    if (!gpu)
        return LOST;
    for (unsigned i = 0; i < gpu->n_pids && i < *count; i++)
        processes[i] = (struct process){.pid = gpu->pids[i], .memory = gpu->used};
    *count = gpu->n_pids;
    return 0;
}

int nvmlEventSetCreate(void **set);
int nvmlEventSetCreate(void **set)
{
    *set = told;
    return 0;
}

int nvmlDeviceRegisterEvents(struct handle *device, unsigned long long types, void *set);
int nvmlDeviceRegisterEvents(struct handle *device, unsigned long long types, void *set)
{
    return device && types == 8 && set ? 0 : NOT_SUPPORTED;
}

int nvmlEventSetWait_v2(void *set, struct event *event, unsigned wait_ms);
int nvmlEventSetWait_v2(void *set, struct event *event, unsigned wait_ms)
{
    refresh();
    for (unsigned i = 0; set && wait_ms == 0 && i < n_gpus; i++) {
        if (gpus[i].xids <= told[i])
            continue;
        told[i]++;
        *event = (struct event){.device = &handles[i][0],
                                .type = 8,
                                .data = gpus[i].xid,
                                .gpu_instance = gpus[i].mig ? 1 : 0xFFFFFFFF};
        return 0;
    }
    return TIMEOUT;
}

int nvmlEventSetFree(void *set);
int nvmlEventSetFree(void *set)
{
    return set ? 0 : NOT_SUPPORTED;
}

int nvmlDeviceGetMigMode(struct handle *device, unsigned *now, unsigned *pending);
int nvmlDeviceGetMigMode(struct handle *device, unsigned *now, unsigned *pending)
{
    const struct gpu *gpu = look(device);

    if (!gpu)
        return LOST;
    *now = *pending = gpu->mig > 0;
    return 0;
}

int nvmlDeviceGetMaxMigDeviceCount(struct handle *device, unsigned *count);
int nvmlDeviceGetMaxMigDeviceCount(struct handle *device, unsigned *count)
{
    *count = device ? 3 : 0;
    return 0;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *device, unsigned index,
                                        struct handle **instance);
int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *device, unsigned index,
                                        struct handle **instance)
{
    const struct gpu *gpu = look(device);

    if (!gpu || index >= gpu->mig || index > 2)
        return NOT_FOUND;
    handles[device->gpu][1 + index] = (struct handle){device->gpu, (int)index};
    *instance = &handles[device->gpu][1 + index];
    return 0;
}

int nvmlDeviceGetGpuInstanceId(struct handle *device, unsigned *id);
int nvmlDeviceGetGpuInstanceId(struct handle *device, unsigned *id)
{
    *id = (unsigned)device->instance;
    return device->instance >= 0 ? 0 : NOT_SUPPORTED;
}
