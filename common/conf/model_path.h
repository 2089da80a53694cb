/* model_path.h - where a model's files are
 *
 * A folder (relative to the grid's), or "org/name" looked up offline in the
 * Hugging Face cache: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub,
 * models--org--name/snapshots/REVISION, where a revision is a commit, or a
 * branch or tag of refs/ (main when none is given).  Nothing is downloaded. */
#ifndef HA_COMMON_CONF_MODEL_PATH_H
#define HA_COMMON_CONF_MODEL_PATH_H

#include <stdbool.h>

struct ha_error;

/* True for "org/name": two parts of letters, digits and "._-". */
bool ha_model_path_is_hub_id(const char *path);

/* base_dir: of relative folders; revision may be NULL.  A folder that exists
 * wins over the cache.  -ENOENT says where was looked.  The caller frees
 * *ret_dir. */
int ha_model_path_resolve(const char *base_dir, const char *path, const char *revision,
                          char **ret_dir, struct ha_error *err);

#endif
