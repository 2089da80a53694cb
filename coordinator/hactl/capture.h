/* capture.h - what another of the project's programs prints */
#ifndef HA_COORDINATOR_HACTL_CAPTURE_H
#define HA_COORDINATOR_HACTL_CAPTURE_H

struct ha_error;

/* Run a program (found by name) to its end and take its standard output; its
 * standard error goes to ours.  arguments[0] is the name; ended by NULL.  The
 * caller frees *ret_text.  -ENOENT when the program is nowhere, -ECANCELED when
 * it ended with another code than 0 (it has said why on standard error). */
int ha_capture(const char *const *arguments, char **ret_text, struct ha_error *err);

/* The same whatever it ended with: *ret_status as waitpid gives it. */
int ha_capture_status(const char *const *arguments, char **ret_text, int *ret_status,
                      struct ha_error *err);

#endif
