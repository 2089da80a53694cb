/* secret.h - programs that hold secrets */
#ifndef HA_COMMON_BASE_SECRET_H
#define HA_COMMON_BASE_SECRET_H

/* From now on this process leaves no core file and no other program of its user may
 * read its memory; programs that it starts are not concerned.  Called by whatever
 * reads a secret into memory; again is legal. */
void ha_secret_guard(void);

#endif
