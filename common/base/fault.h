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
 * Names are PROGRAM.PLACE; tests/fault/README.md lists them. */
#ifndef HA_COMMON_BASE_FAULT_H
#define HA_COMMON_BASE_FAULT_H

#ifdef HA_FAULTS
void ha_fault_point(const char *name);
#define HA_CRASH_POINT(name) ha_fault_point(name)
#else
#define HA_CRASH_POINT(name) ((void)0)
#endif

#endif
