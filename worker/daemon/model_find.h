/* model_find.h - where a model lies on this machine */
#ifndef HA_WORKER_DAEMON_MODEL_FIND_H
#define HA_WORKER_DAEMON_MODEL_FIND_H

struct ha_error;
struct ha_text_list;

/* Look below the roots for the model that the submitter saw at path: at path
 * itself, then at each root followed by the end of path, longest end first.
 * Links are resolved before it is seen whether a folder lies below its root.
 * digest ("" for none) must be that of its files (common/io/digest.h); cache as
 * there.  The caller frees *ret_path.
 * Returns 0, -ENOENT (the text says where was looked), -ESTALE (found, but with
 * other content) and errors of reading. */
int model_find(const struct ha_text_list *roots, const char *path, const char *digest,
               const char *cache, char **ret_path, struct ha_error *err);

#endif
