/* inspect.h - what is done with backups where no coordinator runs, for people and hactl */
#ifndef HA_COORDINATOR_SERVER_INSPECT_H
#define HA_COORDINATOR_SERVER_INSPECT_H

struct ha_error;
struct ha_restore_options;

/* Read all of the file and print on standard output a line of JSON with its facts,
 * then "SHA256 SIZE" for every artifact that it names.  What fails is printed there as
 * {"error": "..."} too: -EBADMSG when it is damaged. */
int ha_inspect(const char *path, struct ha_error *err);

/* ha_restore with a line of progress where a person looks, and what became of it. */
int ha_restore_and_tell(const struct ha_restore_options *options, struct ha_error *err);

#endif
