/* log.h - one line per event on standard error
 *
 * Libraries never log above debug: they return errors, and the program that
 * calls them logs once.  A secret that was registered is replaced by "***"
 * wherever it would appear in a line. */
#ifndef HA_COMMON_BASE_LOG_H
#define HA_COMMON_BASE_LOG_H

enum ha_log_level { HA_LOG_DEBUG, HA_LOG_INFO, HA_LOG_WARNING, HA_LOG_ERROR };
enum ha_log_format { HA_LOG_TEXT, HA_LOG_JSON };

/* program: a string that outlives the process's logging.  Lines below level
 * are dropped.  Default: "ha", info, text. */
void ha_log_setup(const char *program, enum ha_log_level level, enum ha_log_format format);

/* "debug" | "info" | "warning" | "error" -> level.  Returns 0 or -EINVAL. */
int ha_log_level_parse(const char *name, enum ha_log_level *ret_level);

/* Never print this value.  At most 16 secrets of 8 to 255 bytes are kept.
 * Returns 0, -EINVAL (length) or -ENOSPC. */
int ha_log_redact(const char *secret);

void ha_log(enum ha_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define ha_log_debug(...) ha_log(HA_LOG_DEBUG, __VA_ARGS__)
#define ha_log_info(...) ha_log(HA_LOG_INFO, __VA_ARGS__)
#define ha_log_warning(...) ha_log(HA_LOG_WARNING, __VA_ARGS__)
#define ha_log_error(...) ha_log(HA_LOG_ERROR, __VA_ARGS__)

#endif
