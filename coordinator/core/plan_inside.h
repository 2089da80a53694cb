/* plan_inside.h - what the files of a plan share (plan.h) */
#ifndef HA_COORDINATOR_CORE_PLAN_INSIDE_H
#define HA_COORDINATOR_CORE_PLAN_INSIDE_H

#include "coordinator/core/plan.h"

enum {
    HA_PLAN_SLOWEST = 127, /* of maker.levels */
    /* Steps of a few ns after which a plan that has given something stops looking for something
     * better, and goes on in the next one with what is left: some 3 ms. */
    HA_PLAN_WORK = 400000
};

/* A place where a job may run now. */
struct given {
    int64_t worker; /* index */
    int64_t order;  /* of the group's, in which they were taken */
    bool idle;      /* it is an idle device of the worker's, not only a slot */
};

/* Jobs that may become one, or one job by itself. */
struct group {
    const struct ha_plan_job *first;
    int64_t begin, count; /* in maker.members */
    int64_t devices;      /* given to it: that many of maker.given */
    int64_t sets;         /* that they are divided into */
    double finish;
    int64_t next_devices;         /* the least that make it end sooner; 0: none do */
    int64_t kind;                 /* in maker.kinds */
    int64_t share;                /* in maker.shares */
    int64_t want;                 /* in maker.wants */
    int64_t next;                 /* group of its share that has not had its turn; -1: none */
    bool stuck;                   /* no device more makes it end sooner */
    int64_t nodes;                /* workers that it needs at once */
    int64_t team;                 /* of several: these, in maker.teams, once it has them */
    double load, heaviest, speed; /* of all cells, of one, of its devices, where it is guessed */
};

/* Slots of a sweep, with what this plan gives; its groups that have not had their turn at a first
 * place. */
struct share {
    int64_t sweep, used;
    int64_t first; /* group; -1: none */
};

/* Groups for which the same place is best.  ranks is a heap of workers, the best on top, made when
 * it is needed first.  Taking places makes ranks worse only: one that is out of date is seen when
 * it comes to the top, and put where it belongs.  A place that is given back is put in anew. */
struct want {
    int64_t kind, model;
    bool answers; /* else training */
    uint64_t *ranks;
    int64_t count, capacity;
};

/* Jobs that need the same of a worker. */
struct kind {
    const struct ha_fit *fit;
    bool *fits;             /* per worker that takes work and had a free slot */
    int64_t slots, devices; /* that are free */
    int64_t memory_bytes;   /* the least of the workers with free slots; 0: of none is it known */
    bool blind;             /* of some it is not */
    bool crowded;           /* a gang of it did not get all its workers in this plan */
};

/* What is free of the workers that the first gang waits for. */
struct kept {
    const struct ha_plan_job *job;         /* NULL: no gang waits for a place */
    int64_t start_ms;                      /* until it has all, by the estimates; -1: not known */
    int64_t workers[HA_PLAN_NODES], count; /* indices */
};

struct maker {
    const struct ha_plan_snapshot *snapshot;
    int64_t *used, *idle; /* per worker: slots and devices; this plan takes some too */
    double *speeds;       /* (2, workers): at training, at answering; NULL: nothing is known */
    uint8_t *levels;      /* beside speeds: 0 the fastest, FASTER between two */
    struct group *groups; /* in order: priority, groups that grow last, first job */
    int64_t n_groups;
    const struct ha_plan_job **members; /* group by group */
    struct ha_fuse_need *needs;         /* beside members */
    int64_t *set_of, *trial;            /* beside members */
    struct given *given;  /* beside members: devices of the group, the fastest first */
    double *given_speeds; /* beside given */
    struct kind *kinds;
    int64_t n_kinds;
    bool *fits; /* of all kinds */
    struct share *shares;
    int64_t n_shares;
    struct want *wants;
    int64_t n_wants;
    int64_t *teams; /* workers of gangs */
    int64_t n_teams, team_capacity;
    int64_t *by_island; /* workers, once a gang has asked for them */
    struct kept kept;
    int64_t *table;       /* of find_groups */
    int64_t slots;        /* that are free */
    bool some_loaded;     /* a worker has a model loaded that is not at work */
    int64_t work;         /* steps made so far, where they are many */
    int64_t first_places; /* given to groups and gangs */
    struct ha_plan_assignment *out;
    int64_t count, limit;
};

/* It has made its steps, or has given as much as can be assigned. */
bool ha_plan_spent(const struct maker *m);

/* FLOP/s at this kind of work, or 1 where nothing is known of any worker. */
double ha_plan_speed_at(const struct maker *m, int64_t worker, enum ha_stage_kind kind);

/* One place of a worker more (1) or less (-1) is taken for a group. */
void ha_plan_count_place(struct maker *m, const struct group *group, int64_t worker, bool idle,
                         int64_t change);

/* The group with the places that it has, for fuse.h. */
struct ha_fuse_group ha_plan_fuse_group(struct maker *m, const struct group *group);

/* Divide the group over the places that it has now.  -ENOMEM. */
int ha_plan_divide(struct maker *m, struct group *group, int64_t *set_of, double *ret_finish);

/* Give it places up to so many, and divide it.  -ENOMEM. */
int ha_plan_settle(struct maker *m, struct group *group, int64_t devices);

/* Idle devices to the groups [begin, end) that end last, while that helps.  -ENOMEM. */
int ha_plan_give_more(struct maker *m, int64_t begin, int64_t end);

/* How good a place the worker is: higher is better, no two are equal. */
uint64_t ha_plan_place_rank(const struct maker *m, const struct want *want, int64_t worker);

/* Find a gang's workers.  1: they are in maker.teams; 0: not enough are free, and the first such
 * gang keeps those that are (maker.kept; the caller takes their places).  -ENOMEM. */
int ha_plan_gang_seat(struct maker *m, struct group *group);

/* The workers that one gang could have if all were free, and how many of them are, and when it
 * could begin by the estimates (-1: not known).  -ENOMEM. */
int ha_plan_gang_look(const struct ha_plan_snapshot *snapshot, const struct ha_plan_job *job,
                      int64_t *ret_seats, int64_t *ret_free, int64_t *ret_start_ms);

/* Rank the workers with free slots, for this want.  -ENOMEM. */
int ha_plan_places_make(struct maker *m, struct want *want);

/* The best place; there is one, and ranks were made. */
int64_t ha_plan_place_best(const struct maker *m, struct want *want);

/* A model that is loaded there; 0: none. */
int64_t ha_plan_loaded(const struct ha_plan_worker *worker);

/* Which group of the share comes next, of those that wait for their turn: the first, or one that
 * keeps a loaded model.  The first has a free slot of its kind.  -ENOMEM. */
int ha_plan_place_first(struct maker *m, const struct share *share, struct group **ret_group);

/* A place of the worker is free again. */
void ha_plan_place_back(const struct maker *m, struct want *want, int64_t worker);

#endif
