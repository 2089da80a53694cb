/* log_file.h - what an attempt prints, in files of bounded size
 *
 *   PATH       the newest; while it is written at most `bytes` long
 *   PATH.1 ... what went before, newest first; PATH.(files - 1) is the oldest kept
 *
 * After the end PATH holds the last `bytes` bytes of all that was printed. */
#ifndef HA_WORKER_DAEMON_LOG_FILE_H
#define HA_WORKER_DAEMON_LOG_FILE_H

#include <stddef.h>
#include <stdint.h>

struct ha_error;
struct log_file;

/* files: at least 1; all of them together are at most files * bytes long. */
int log_file_open(const char *path, int64_t bytes, int64_t files, struct log_file **ret_log,
                  struct ha_error *err);

/* What cannot be written (a full disk) is lost; the attempt does not wait for it. */
void log_file_write(struct log_file *log, const char *text, size_t size);

/* Joins the last two where a file was begun anew; NULL is legal. */
void log_file_close(struct log_file *log);

#endif
