/* fault.h - places where a test may end the process
 *
 * HA_CRASH_POINT("name") marks a place at a durable boundary.  In builds with
 * -Dfaults=true the variable
 *
 *     HA_CRASH=NAME[:N][?ARM][@FILE][,...]
 *
 * kills the process (SIGKILL) when it comes to NAME for the N-th time (1).  With
 * ARM only the times count at which that file is there; with FILE it happens only
 * if that file could be made, so that a program that is started anew with the same
 * environment goes on; the process's number is written there.  HA_HANG has the same form: the
 * thread stays there for as long as FILE does, without one for ever.
 * HA_SLOW=NAME:MS: it stays there for so many milliseconds, every time.
 * HA_CRASH_TRACE=FILE: every point that is
 * come to for the first time is appended to FILE, a line each.  All other
 * builds have nothing there.
 *
 * HA_FAULT_DURABLE(folder, name): from here on the program relies on it that this file, as it is,
 * and its name are on the disk (folder NULL: name is its path).  In those builds it goes into the
 * record of tests/fault/shim.c where that is there, which shows whether it is so.
 *
 * Names are PROGRAM.PLACE; tests/fault/README.md lists them. */
#ifndef HA_COMMON_BASE_FAULT_H
#define HA_COMMON_BASE_FAULT_H

#ifdef HA_FAULTS
void ha_fault_point(const char *name);
void ha_fault_durable(const char *folder, const char *name);
#define HA_CRASH_POINT(name) ha_fault_point(name)
#define HA_FAULT_DURABLE(folder, name) ha_fault_durable(folder, name)
#else
#define HA_CRASH_POINT(name) ((void)0)
#define HA_FAULT_DURABLE(folder, name) ((void)0)
#endif

#endif
