/* inspect.h - what a copy of a coordinator's database holds */
#ifndef HA_COORDINATOR_SERVER_INSPECT_H
#define HA_COORDINATOR_SERVER_INSPECT_H

struct ha_error;

/* Read all of the file and print on standard output a line of JSON with its facts,
 * then "SHA256 SIZE" for every artifact that it names.  -EBADMSG when it is damaged. */
int ha_inspect(const char *path, struct ha_error *err);

#endif
