/* progress.h - how far a sweep is, from its status rows
 *
 * Pure functions. */
#ifndef HA_COORDINATOR_HACTL_PROGRESS_H
#define HA_COORDINATOR_HACTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct ha_status;
struct ha_wire_cell_row;
struct ha_wire_stage_row;

/* True for done, reused, failed, cancelled. */
bool ha_stage_final(const struct ha_wire_stage_row *stage);

/* True for done and reused. */
bool ha_stage_complete(const struct ha_wire_stage_row *stage);

/* Share of its work that a stage has done, 0..1. */
double ha_stage_fraction(const struct ha_wire_stage_row *stage);

/* Time until a stage that runs has done its work, at the rate so far; -1: not known. */
int64_t ha_stage_remaining_ms(const struct ha_wire_stage_row *stage, int64_t now_ms);

struct ha_progress {
    int64_t stages, final, complete, failed, running, answers, answers_total, scores, scores_total;
    double fraction;      /* of all stages, each counting the same */
    int64_t remaining_ms; /* from the durations measured so far; -1: nothing measured yet */
    bool at_least;        /* remaining_ms lacks a kind of stage that was not measured yet */
};

/* remaining: for every kind of stage (probe, train, generate, judge) the mean time per
 * unit of work measured in this sweep's own stages, times the work left, over
 * the number of stages that run now. */
struct ha_progress ha_progress_of(const struct ha_status *status);

/* The same of cells that come one after the other: sums begin as zeros. */
enum { HA_PROGRESS_KINDS = 4 };
struct ha_progress_sums {
    struct ha_progress counts; /* without fraction and what remains */
    double parts;
    double time[HA_PROGRESS_KINDS], work[HA_PROGRESS_KINDS], left[HA_PROGRESS_KINDS];
};
void ha_progress_add(struct ha_progress_sums *sums, const struct ha_wire_cell_row *cell,
                     int64_t now_ms);
struct ha_progress ha_progress_end(const struct ha_progress_sums *sums);

/* "2 h 05 min", "3 min 20 s", "14 s", "-" for -1. */
enum { HA_DURATION_BYTES = 32 };
const char *ha_duration_text(int64_t ms, char text[HA_DURATION_BYTES]);

#endif
