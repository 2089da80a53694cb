/* workers.h - light workers: connections that take jobs, wait or start /bin/true, and report */
#ifndef HA_TESTS_BENCH_CONTROL_WORKERS_H
#define HA_TESTS_BENCH_CONTROL_WORKERS_H

#include "tests/bench/control/peer.h"

struct workers_options {
    int64_t workers, slots; /* slots of each */
    int64_t run_ms;         /* that a job takes; 0: it is done when it comes */
    const char
        *spawn_dir; /* each job is a process, /bin/true, its output in a file here; or NULL */
};

struct workers;

/* Connects and says hello with all of them, and waits until all are known. */
struct workers *workers_open(struct bench_network *network, const struct workers_options *options);
void workers_close(struct workers *w);

/* Turns of the loop until so many reports of done jobs are acknowledged. */
void workers_run(struct workers *w, int64_t jobs);

/* Turns of the loop for so long; the workers only beat. */
void workers_idle(struct workers *w, int64_t ms);

/* From the report that frees a slot until the slot's next job runs, and from a report until its
 * acknowledgement. */
struct bench_times *workers_dispatch(struct workers *w);
struct bench_times *workers_completion(struct workers *w);
void workers_forget_times(struct workers *w);

#endif
