/* key.h - the evaluator's key: where it may come from and where it may go
 *
 * A grid only names a key (api_key); the judge worker's own file binds that
 * name to one variable or 0600 file and to the hosts it may be sent to.  In the
 * embedded form (config->grid_keys) the grid itself may name a variable or file.
 * The value goes into one HTTP header and nowhere else. */
#ifndef HA_JUDGE_WORKER_KEY_H
#define HA_JUDGE_WORKER_KEY_H

#include <stddef.h>

struct ha_error;
struct ha_judge_config;
struct ha_sweep_judge;

/* *ret_key: the key, which the caller ends with ha_judge_key_destroy, or NULL
 * when the judge has none.  The key is made known to ha_log_redact. */
int ha_judge_key_find(const struct ha_sweep_judge *judge, const struct ha_judge_config *config,
                      char **ret_key, struct ha_error *err);

/* Overwrite, then free.  NULL is legal. */
void ha_judge_key_destroy(char *key);

/* Overwrite every occurrence of the key with '*'.  key may be NULL. */
void ha_judge_key_hide(const char *key, char *bytes, size_t size);

#endif
