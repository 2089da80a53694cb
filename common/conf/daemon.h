/* daemon.h - coordinator.toml, worker.toml, judge.toml
 *
 * The same tables as grid.toml's sections, without section names: every key
 * stands at the top of its file (settings.h).  Command lines give the same keys
 * with --set.  A file is not needed: path NULL gives the defaults.  Relative
 * paths mean the folder of the file; ha_*_config_load has resolved them. */
#ifndef HA_COMMON_CONF_DAEMON_H
#define HA_COMMON_CONF_DAEMON_H

#include "common/conf/settings.h"

struct ha_coordinator_config {
    uint64_t given;
    char *listen;       /* endpoint of the control socket */
    char *files_listen; /* of the artifact socket; default: made from listen */
    char *database;
    char *artifacts;
    char *keys;             /* folder of the CURVE keys and the allow-list */
    bool insecure_loopback; /* tcp:// on loopback without keys */
    int64_t heartbeat_ms, late_ms, lost_ms;
    int64_t max_frame_bytes;
    int64_t stop_grace_s;
    int64_t gang_ready_s, gang_abort_s;
    int64_t preempt_after_s;                  /* 0: attempts never make room for others */
    int64_t gc_after_s;                       /* what hactl gc removes is older */
    char *max_artifact_size, *max_sweep_size; /* "none", or an amount of memory */
    int64_t max_connections;                  /* of either socket */
    int64_t max_requests_per_second;          /* of one connection; 0: any number */
    int64_t max_grids, max_grids_per_client;  /* large submits under way; 0: any number */
    int64_t set_aside_after;                  /* failed jobs; 0: workers are never set aside */
    char *log_level, *log_format;
};

struct ha_worker_config {
    uint64_t given;
    char *name;                /* default: the host's */
    char *coordinator, *files; /* endpoints */
    char *work_dir;
    struct ha_text_list model_roots;
    int64_t slots;   /* attempts at a time */
    int64_t threads; /* per attempt; 0: the machine's cores over slots */
    char *backend;   /* "auto" | "cpu" | "cuda" */
    struct ha_text_list labels;
    int64_t gpus;                /* that one attempt may use */
    char *gpu_memory;            /* of each */
    struct ha_text_list devices; /* which GPUs; empty: all that CUDA_VISIBLE_DEVICES leaves */
    char *device_free_memory;    /* in use, and still counting as free */
    int64_t device_release_s;    /* until an ended attempt's memory must be free */
    int64_t driver_answer_s;     /* that the start waits for the GPU driver */
    char *without_driver;        /* "wait" | "cpu", while it does not answer */
    int64_t max_devices_aside;
    char *key_file;        /* this worker's CURVE key pair */
    char *server_key_file; /* the coordinator's public key */
    bool insecure_loopback;
    char *cgroup;                 /* "auto" | "off" | a folder */
    char *attempt_memory;         /* of each process of an attempt; NULL: no limit */
    int64_t stop_grace_s;         /* between SIGTERM and SIGKILL of an attempt */
    char *load_disk, *load_cache; /* a second: how fast a GPU is loaded, until that is measured */
    int64_t keep_model_s; /* that its process waits for the next job of its model; 0: it does not */
    int64_t stall_load_s, stall_step_s, stall_generate_s;
    char *log_size; /* of one file of an attempt's log */
    int64_t log_files;
    char *log_level, *log_format;
};

/* [[key]] of judge.toml: what a grid's judge may name. */
struct ha_judge_key {
    uint64_t given;
    char *name;
    char *env, *file;          /* exactly one; a file has mode 0600 */
    struct ha_text_list hosts; /* where it may be sent */
};

struct ha_judge_config {
    uint64_t given;
    char *name;
    char *coordinator, *files;
    char *spool;         /* folder of raw replies that the coordinator has not yet */
    int64_t concurrency; /* at most, over all judges */
    int64_t max_reply_bytes;
    char *key_file, *server_key_file;
    bool insecure_loopback;
    bool grid_keys; /* the embedded form: take api_key_env and api_key_file from the grid */
    int64_t stop_grace_s;
    char *log_level, *log_format;
    struct ha_judge_key *keys;
    int64_t key_count;
};

extern const struct ha_section ha_coordinator_section, ha_worker_section, ha_judge_section,
    ha_judge_key_section;

/* The endpoint of the artifact socket that belongs to a control endpoint when
 * none is given: ".files" behind an ipc:// path, the next port of tcp://.  NULL
 * with -EINVAL in err when there is none (a port that the system chooses). */
char *ha_endpoint_files(const char *endpoint, struct ha_error *err);

/* overrides[count]: "key=value".  ret_config holds nothing before and is ended
 * with the matching clear. */
int ha_coordinator_config_load(const char *path, const char *const *overrides, int64_t count,
                               struct ha_coordinator_config *ret_config, struct ha_error *err);
int ha_worker_config_load(const char *path, const char *const *overrides, int64_t count,
                          struct ha_worker_config *ret_config, struct ha_error *err);
int ha_judge_config_load(const char *path, const char *const *overrides, int64_t count,
                         struct ha_judge_config *ret_config, struct ha_error *err);

void ha_coordinator_config_clear(struct ha_coordinator_config *config);
void ha_worker_config_clear(struct ha_worker_config *config);
void ha_judge_config_clear(struct ha_judge_config *config);

#endif
