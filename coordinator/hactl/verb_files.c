/* artifacts get, and export: files out of the store. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/error.h"
#include "common/base/path.h"
#include "coordinator/hactl/address.h"
#include "coordinator/hactl/fetch.h"
#include "coordinator/hactl/transfer.h"
#include "coordinator/hactl/verbs.h"

static int run_artifacts(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *sha256 = ha_arguments_at(arguments, 1, "");
    struct ha_session *session;
    int r;

    if (strcmp(ha_arguments_at(arguments, 0, ""), "get") != 0)
        return ha_error_set(err, EINVAL, "hactl artifacts: the only thing to do is get SHA256");
    r = ha_session_open(arguments, &session, err);
    if (r < 0)
        return r;
    r = ha_transfer_get(ha_session_link(session), sha256,
                        ha_arguments_value(arguments, "out", sha256), err);
    ha_session_close(session);
    return r;
}

static int export_stage(struct ha_link *link, const struct ha_wire_stage_row *stage,
                        const char *dir, int64_t *files, struct ha_error *err)
{
    int r = 0;

    for (int64_t i = 0; r == 0 && i < stage->n_artifacts; i++) {
        const struct ha_wire_attempt_artifact *artifact = &stage->artifacts[i];
        char *path;

        if (strcmp(artifact->kind, "adapter") != 0 || strchr(artifact->name, '/'))
            continue;
        path = ha_path_join(dir, artifact->name);
        r = path ? ha_transfer_get(link, artifact->sha256, path, err)
                 : ha_error_set(err, ENOMEM, "hactl: out of memory");
        free(path);
        *files += r == 0;
    }
    return r;
}

static int run_export(const struct ha_arguments *arguments, struct ha_error *err)
{
    const char *cell = ha_arguments_at(arguments, 0, "");
    const char *dir = ha_arguments_value(arguments, "out", "adapter");
    struct ha_session *session;
    struct ha_status *status;
    int64_t files = 0;
    int r = ha_session_open(arguments, &session, err);

    if (r < 0)
        return r;
    r = ha_fetch_status(ha_session_link(session), ha_arguments_value(arguments, "sweep", ""), cell,
                        &status, err);
    if (r == 0) {
        r = ha_path_make_dirs(dir, 0777, err);
        for (int64_t i = 0; r == 0 && i < status->n_cells; i++)
            for (int64_t k = 0; r == 0 && k < status->cells[i]->n_stages; k++)
                r = export_stage(ha_session_link(session), &status->cells[i]->stages[k], dir,
                                 &files, err);
        ha_status_destroy(status);
    }
    if (r == 0 && files == 0)
        r = ha_error_set(err, ENOENT,
                         "%s has no adapter (base trains none; others have it when "
                         "train is done)",
                         cell);
    if (r == 0)
        printf("%s: %lld files; load them with PeftModel.from_pretrained\n", dir, (long long)files);
    ha_session_close(session);
    return r;
}

static const struct ha_option artifact_options[] = {
    {"out", "FILE", "where to write it (default: the digest, here)"}};

static const struct ha_option export_options[] = {
    {"out", "DIR", "where to write the adapter (default: adapter)"},
    {"sweep", "SWEEP", "the sweep, when there are several"},
};

const struct ha_verb ha_verb_artifacts = {
    .name = "artifacts",
    .command =
        {
            .name = "hactl artifacts",
            .synopsis = "get SHA256",
            .summary = "fetch a file of the store by its digest",
            .example = "hactl artifacts get "
                       "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 "
                       "--out adapter_model.safetensors",
            .options = artifact_options,
            .n_options = sizeof(artifact_options) / sizeof(artifact_options[0]),
            .min_positional = 2,
            .max_positional = 2,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run_artifacts,
};

const struct ha_verb ha_verb_export = {
    .name = "export",
    .command =
        {
            .name = "hactl export",
            .synopsis = "CELL",
            .summary = "write a cell's adapter as a PEFT folder",
            .example = "hactl export qwen3-demo/mid --out qwen3-mid",
            .options = export_options,
            .n_options = sizeof(export_options) / sizeof(export_options[0]),
            .min_positional = 1,
            .max_positional = 1,
            .shared_options = ha_remote_options,
            .n_shared_options = HA_REMOTE_OPTIONS,
        },
    .run = run_export,
};
