#include "worker/daemon/groups.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/memory.h"
#include "common/base/memory_use.h"
#include "common/base/path.h"
#include "common/conf/daemon.h"
#include "common/conf/settings.h"
#include "common/io/file.h"

enum {
    NAME_DIGITS = 16,
    SMALL_BYTES = 1 << 20, /* of a file of the kernel */
    KILL_ROUNDS = 16,      /* a process may fork while its group is killed one by one */
    GONE_MS = 2000         /* that killed processes have to be gone by at the end */
};

static const char prefix[] = "ha-worker-", record[] = "cgroup";

struct options {
    const char *work_dir;
    int64_t memory_bytes; /* 0: any */
};

struct groups {
    char *folder; /* of this worker's groups */
    int64_t memory_bytes;
    struct ha_text_list left; /* ended, but held by what is dying */
};

struct group {
    struct groups *groups;
    char *folder, *procs;
    int64_t starved_before; /* in a folder of this name that was left */
};

/* ---- the kernel's files ---------------------------------------------------------------------- */

static char *read_small(const char *folder, const char *name)
{
    char *path = ha_path_join(folder, name), *text = NULL;
    size_t size;

    if (!path || ha_file_read(path, SMALL_BYTES, &text, &size, NULL) < 0)
        text = NULL;
    free(path);
    return text;
}

/* The file has to be there. */
static int write_small(const char *folder, const char *name, const char *text)
{
    char *path = ha_path_join(folder, name);
    int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    int r = fd < 0 ? -errno : 0;

    free(path);
    if (fd < 0)
        return r;
    if (write(fd, text, strlen(text)) < 0)
        r = -errno;
    (void)close(fd);
    return r;
}

/* The group itself, not those below it.  Whoever is looked at is the one that is killed. */
static bool kill_one_by_one(const char *folder)
{
    char *text = read_small(folder, "cgroup.procs");
    bool any = false;

    for (char *save = NULL, *line = text ? strtok_r(text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        long pid = strtol(line, NULL, 10);
        int fd = pid > 1 && pid != getpid() ? pidfd_open((pid_t)pid, 0) : -1;

        if (fd < 0)
            continue;
        any = pidfd_send_signal(fd, SIGKILL, NULL, 0) == 0 || any;
        (void)close(fd);
    }
    free(text);
    return any;
}

/* How many processes of the group the kernel killed for memory; those of groups below it count, and
 * nobody else's.  -1: it does not tell. */
static int64_t count_starved(const char *folder)
{
    char *text = read_small(folder, "memory.events");
    int64_t count = -1;

    for (char *save = NULL, *line = text ? strtok_r(text, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "oom_kill ", strlen("oom_kill ")) == 0)
            count = strtoll(line + strlen("oom_kill "), NULL, 10);
    }
    free(text);
    return count;
}

static int64_t count_processes(const char *folder)
{
    char *text = read_small(folder, "cgroup.procs");
    int64_t n = 0;

    for (const char *at = text; at && *at; at++)
        n += *at == '\n';
    free(text);
    return n;
}

static void kill_all(const char *folder)
{
    if (write_small(folder, "cgroup.kill", "1") == 0)
        return;
    for (int i = 0; i < KILL_ROUNDS && kill_one_by_one(folder); i++)
        ;
}

/* ---- where ----------------------------------------------------------------------------------- */

/* Word number `at` of a line whose words are apart by single spaces; NULL: it has not so many. */
static char *word_of(const char *line, int at)
{
    for (; line && at > 0; at--) {
        line = strchr(line, ' ');
        line = line ? line + 1 : NULL;
    }
    return line ? ha_strndup(line, strcspn(line, " \n")) : NULL;
}

/* Where version 2 is mounted, and which group its root is there. */
static bool find_mount(char **ret_point, char **ret_root)
{
    char *text = read_small("/proc/self", "mountinfo"), *point = NULL, *root = NULL;

    for (char *save = NULL, *line = text ? strtok_r(text, "\n", &save) : NULL; line && !point;
         line = strtok_r(NULL, "\n", &save)) {
        if (!strstr(line, " - cgroup2 "))
            continue;
        root = word_of(line, 3);
        point = word_of(line, 4);
    }
    free(text);
    *ret_point = point;
    *ret_root = root;
    return point && root;
}

/* The folder of the group that this process is in; NULL: there is none. */
static char *find_own(void)
{
    char *text = read_small("/proc/self", "cgroup"), *point = NULL, *root = NULL, *own = NULL;
    char *line = text ? strstr(text, "0::/") : NULL;
    size_t skip;

    if (line && (line == text || line[-1] == '\n') && find_mount(&point, &root)) {
        line += strlen("0::");
        line[strcspn(line, "\n")] = '\0';
        skip = strcmp(root, "/") == 0 ? 0 : strlen(root);
        if (strncmp(line, root, skip) == 0)
            own = ha_format("%s%s", point, strcmp(line + skip, "/") == 0 ? "" : line + skip);
    }
    free(text);
    free(point);
    free(root);
    return own;
}

/* The root of all groups is not the worker's to divide: it has no such file. */
static bool has_parent(const char *folder)
{
    char *path = ha_path_join(folder, "cgroup.events");
    bool has = path && ha_path_exists(path);

    free(path);
    return has;
}

/* The worker's folder below parent, the same whenever this work_dir is used. */
static char *own_folder(const char *parent, const char *work_dir)
{
    char *whole = realpath(work_dir, NULL), hex[HA_SHA256_HEX_BYTES];
    uint8_t hash[HA_SHA256_BYTES];
    char *folder = NULL;

    if (whole) {
        ha_sha256(whole, strlen(whole), hash);
        folder = ha_format("%s/%s%.*s", parent, prefix, NAME_DIGITS, ha_sha256_hex(hash, hex));
    }
    free(whole);
    return folder;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bool has_word(const char *folder, const char *name, const char *word)
{
    char *text = read_small(folder, name);
    bool found = false;

    for (char *save = NULL, *at = text ? strtok_r(text, " \n", &save) : NULL; at && !found;
         at = strtok_r(NULL, " \n", &save))
        found = strcmp(at, word) == 0;
    free(text);
    return found;
}

/* Have the children's memory counted.  Where the kernel wants a group with such children to have no
 * process itself, this one, if it is alone there, moves to a child. */
static int count_memory(const char *folder)
{
    int r = has_word(folder, "cgroup.subtree_control", "memory")
                ? 0
                : write_small(folder, "cgroup.subtree_control", "+memory");
    char *leaf;

    if (r != -EBUSY || count_processes(folder) != 1)
        return r;
    leaf = ha_format("%s/ha-worker-daemon", folder);
    if (leaf && (mkdir(leaf, 0755) == 0 || errno == EEXIST))
        r = write_small(leaf, "cgroup.procs", "0");
    free(leaf);
    return r < 0 ? r : write_small(folder, "cgroup.subtree_control", "+memory");
}

static void set_up_memory(const char *parent, const char *folder, int64_t bytes)
{
    bool counted = has_word(parent, "cgroup.controllers", "memory") && count_memory(parent) == 0 &&
                   count_memory(folder) == 0;

    if (!counted && bytes > 0)
        ha_log_warning("attempt_memory has no effect: %s has no memory controller to give", parent);
}

/* ---- removing -------------------------------------------------------------------------------- */

/* Kill what is in the groups below; true: there are none (any more). */
static bool sweep(const char *folder, int64_t *ret_killed)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    bool gone = true;

    while (dir && (entry = readdir(dir)) != NULL) {
        char *child = NULL;
        struct stat st;

        if (entry->d_name[0] != '.')
            child = ha_path_join(folder, entry->d_name);
        if (child && lstat(child, &st) == 0 && S_ISDIR(st.st_mode)) {
            *ret_killed += count_processes(child);
            kill_all(child);
            gone = (rmdir(child) == 0 || errno != EBUSY) && gone;
        }
        free(child);
    }
    if (dir)
        (void)closedir(dir);
    return gone;
}

static int64_t sweep_all(const char *folder)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    int64_t end_ms = ha_clock_boot_ms() + GONE_MS, killed = 0, again = 0;
    bool gone = sweep(folder, &killed);

    while (!gone && ha_clock_boot_ms() < end_ms) {
        (void)nanosleep(&pause, NULL);
        gone = sweep(folder, &again);
    }
    return killed;
}

/* Groups of an earlier daemon, which may have been in another group itself. */
static void end_earlier(const char *work_dir, const char *folder)
{
    char *text = read_small(work_dir, record);
    int64_t killed = 0;

    if (text)
        text[strcspn(text, "\n")] = '\0';
    if (text && strcmp(text, folder) != 0 && ha_path_exists(text) &&
        strcmp(strrchr(text, '/') ? strrchr(text, '/') : "", strrchr(folder, '/')) == 0) {
        killed = sweep_all(text);
        (void)rmdir(text);
    }
    free(text);
    killed += sweep_all(folder);
    if (killed > 0)
        ha_log_warning(
            "killed %" PRId64 " processes that attempts of an earlier daemon left behind", killed);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int make_folder(const char *parent, const char *folder, struct ha_error *err)
{
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        return ha_error_set(err, errno, "cannot make control groups in %s: %s", parent,
                            strerror(errno));
    return 0;
}

/* Whoever moves a process needs to write here and where it goes. */
static int check_parent(const char *parent, struct ha_error *err)
{
    char *procs = ha_path_join(parent, "cgroup.procs");
    int r = procs && access(procs, W_OK) == 0
                ? 0
                : ha_error_set(err, errno, "%s is no control group that can be written: %s", parent,
                               strerror(errno));

    free(procs);
    return r;
}

static int open_in(const struct options *options, const char *parent, struct groups **ret_groups,
                   struct ha_error *err)
{
    struct groups *groups = ha_calloc(1, sizeof(*groups));
    char *path = ha_path_join(options->work_dir, record);
    int r = ha_error_set(err, ENOMEM, "out of memory");

    if (groups)
        groups->folder = own_folder(parent, options->work_dir);
    if (groups && groups->folder && path)
        r = check_parent(parent, err);
    if (r == 0)
        r = make_folder(parent, groups->folder, err);
    if (r == 0) {
        end_earlier(options->work_dir, groups->folder);
        r = ha_file_write(path, groups->folder, strlen(groups->folder), 0600, err);
    }
    free(path);
    if (r < 0) {
        free(groups ? groups->folder : NULL);
        free(groups);
        return r;
    }
    groups->memory_bytes = options->memory_bytes;
    set_up_memory(parent, groups->folder, options->memory_bytes);
    ha_log_info("attempts have control groups in %s", groups->folder);
    *ret_groups = groups;
    return 0;
}

int groups_open(const struct ha_worker_config *config, struct groups **ret_groups,
                struct ha_error *err)
{
    struct options options = {.work_dir = config->work_dir};
    struct ha_error why = {0};
    char *own;
    int r = 0;

    if (config->attempt_memory)
        r = ha_memory_parse("attempt_memory", config->attempt_memory, &options.memory_bytes, err);
    if (r < 0)
        return r;
    if (strcmp(config->cgroup, "off") == 0) {
        *ret_groups = NULL;
        return 0;
    }
    if (strcmp(config->cgroup, "auto") != 0)
        return open_in(&options, config->cgroup, ret_groups, err);
    own = find_own();
    if (own && !has_parent(own)) {
        free(own);
        own = NULL;
    }
    r = own ? open_in(&options, own, ret_groups, &why)
            : ha_error_set(&why, ENOENT, "this worker is in no group of cgroup version 2");
    free(own);
    if (r == -ENOMEM)
        return ha_error_set(err, ENOMEM, "out of memory");
    if (r < 0) {
        ha_log_info("attempts have no control groups, only process groups: %s",
                    ha_error_text(&why));
        if (options.memory_bytes > 0)
            ha_log_warning("attempt_memory has no effect without control groups");
        *ret_groups = NULL;
    }
    return 0;
}

void groups_close(struct groups *groups)
{
    if (!groups)
        return;
    (void)sweep_all(groups->folder);
    (void)rmdir(groups->folder);
    ha_text_list_clear(&groups->left);
    free(groups->folder);
    free(groups);
}

/* ---- one ------------------------------------------------------------------------------------- */

/* Nothing is in them any more, or will be. */
static void remove_left(struct groups *groups)
{
    int64_t kept = 0;

    for (int64_t i = 0; i < groups->left.count; i++) {
        char *folder = groups->left.items[i];

        if (rmdir(folder) < 0 && errno == EBUSY)
            groups->left.items[kept++] = folder;
        else
            free(folder);
    }
    groups->left.count = kept;
}

struct group *group_create(struct groups *groups, const char *name)
{
    struct group *group = groups ? ha_calloc(1, sizeof(*group)) : NULL;
    char limit[32];

    if (!group)
        return NULL;
    remove_left(groups);
    group->groups = groups;
    group->folder = ha_path_join(groups->folder, name);
    group->procs = group->folder ? ha_path_join(group->folder, "cgroup.procs") : NULL;
    if (!group->procs || (mkdir(group->folder, 0755) < 0 && errno != EEXIST)) {
        ha_log_warning("no control group %s: %s", name, strerror(errno));
        free(group->folder);
        free(group->procs);
        free(group);
        return NULL;
    }
    group->starved_before = count_starved(group->folder);
    if (group->starved_before < 0)
        group->starved_before = 0;
    (void)snprintf(limit, sizeof(limit), "%" PRId64, groups->memory_bytes);
    if (groups->memory_bytes > 0)
        (void)write_small(group->folder, "memory.max", limit);
    return group;
}

const char *group_procs(const struct group *group)
{
    return group ? group->procs : NULL;
}

void group_kill(struct group *group)
{
    if (group)
        kill_all(group->folder);
}

int group_starved(const struct group *group)
{
    int64_t count = group ? count_starved(group->folder) : -1;

    return count < 0 ? -1 : count > group->starved_before;
}

void group_destroy(struct group *group)
{
    if (!group)
        return;
    kill_all(group->folder);
    remove_left(group->groups);
    /* One that is not remembered for want of memory is removed at the end. */
    if (rmdir(group->folder) < 0 && errno == EBUSY)
        (void)ha_text_list_append(&group->groups->left, group->folder, NULL);
    free(group->folder);
    free(group->procs);
    free(group);
}
