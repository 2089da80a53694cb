/* path.h - file names
 *
 * Texts that are returned are the caller's to free; NULL when memory is
 * short. */
#ifndef HA_COMMON_BASE_PATH_H
#define HA_COMMON_BASE_PATH_H

#include <stdbool.h>

struct ha_error;

/* "dir/name"; name alone when it is absolute or dir is "" or NULL. */
char *ha_path_join(const char *dir, const char *name);

/* Everything before the last slash; "." without one; "/" for "/x". */
char *ha_path_dirname(const char *path);

/* The part after the last slash; points into path. */
const char *ha_path_basename(const char *path);

bool ha_path_exists(const char *path);
bool ha_path_is_dir(const char *path);

/* Make the folder and its missing parents with this mode.  The names that this call made are on the
 * disk when it returns.  Those that were there are not looked at: whoever made one may have been
 * killed before it was synced. */
int ha_path_make_dirs(const char *path, unsigned mode, struct ha_error *err);

/* The same, and the names that were there are on the disk as well (of a relative path: from the
 * working folder on), as is needed for what is relied on after the power has gone.  That is a sync
 * for each parent: for a start, not for what is done often. */
int ha_path_make_durable(const char *path, unsigned mode, struct ha_error *err);

/* Remove a file, or a folder with all that is in it; links are not followed.
 * A path that is not there is not an error. */
int ha_path_remove_tree(const char *path, struct ha_error *err);

/* The folder the running program lies in, links resolved. */
char *ha_path_program_dir(void);

#endif
