#include "coordinator/core/fuse.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/memory.h"
#include "common/conf/json.h"
#include "coordinator/core/least.h"

static const char *const mode_names[HA_FUSE_MODES] = {
    [HA_FUSE_AUTO] = "auto", [HA_FUSE_ALWAYS] = "always", [HA_FUSE_NEVER] = "never"};

enum {
    RANK = 16,  /* of the plan's adapters: the paper's */
    PUT = 8,    /* steps of work that putting a cell into a set takes */
    SORTED = 32 /* of this many comparisons of a sort makes one */
};

/* Below this part of the finish, two divisions end at the same time. */
static const double SAME = 1e-9;

/* Of the work of answering with one more variant, what the first one's pass has done already:
 * where nothing has been measured. */
static const double SHARED_GUESS = 1.0 / 16;

const char *ha_fuse_mode_name(enum ha_fuse_mode mode)
{
    return mode_names[mode];
}

bool ha_fuse_mode_parse(const char *name, enum ha_fuse_mode *ret_mode)
{
    for (int i = 0; i < HA_FUSE_MODES; i++) {
        if (strcmp(mode_names[i], name) == 0) {
            *ret_mode = (enum ha_fuse_mode)i;
            return true;
        }
    }
    return false;
}

/* ---- a division being made --------------------------------------------------------- */

struct set {
    double load;
    int64_t cells, bytes, pass_bytes;
};

struct division {
    const struct ha_fuse_group *group;
    struct set *sets;     /* [count] */
    int64_t *set_of;      /* [count] */
    const int64_t *heavy; /* cells, the heaviest first */
    int64_t n_sets, devices;
    double *weights; /* [count]: of sets */
    struct ha_least lightest;
};

static void count_work(const struct ha_fuse_group *group, int64_t steps)
{
    if (group->work)
        *group->work += steps;
}

static int64_t most_cells(const struct ha_fuse_group *group)
{
    bool known = !group->blind && group->memory_bytes > 0 && group->cells[0].shared_bytes > 0;

    return known ? HA_FUSE_CELLS : HA_FUSE_CELLS_BLIND;
}

/* May the cell join a set that has cells? */
static bool fits(const struct ha_fuse_group *group, const struct set *set,
                 const struct ha_fuse_need *cell)
{
    int64_t shared = group->cells[0].shared_bytes;
    int64_t pass = set->pass_bytes > cell->pass_bytes ? set->pass_bytes : cell->pass_bytes;
    int64_t sum;

    if (set->cells == 0)
        return true;
    if (set->cells >= most_cells(group))
        return false;
    if (group->memory_bytes <= 0 || shared <= 0)
        return true;
    if (__builtin_add_overflow(shared, pass, &sum) ||
        __builtin_add_overflow(sum, set->bytes, &sum) ||
        __builtin_add_overflow(sum, cell->bytes, &sum))
        return false;
    return sum <= group->memory_bytes;
}

static void put(struct set *set, const struct ha_fuse_need *cell, double shared)
{
    set->load += cell->cost + (set->cells == 0 ? shared : 0);
    set->cells++;
    set->bytes += cell->bytes;
    if (cell->pass_bytes > set->pass_bytes)
        set->pass_bytes = cell->pass_bytes;
}

static double speed_of(const struct ha_fuse_group *group, int64_t device)
{
    return group->speeds ? group->speeds[device] : 1;
}

/* What a set counts as when a cell looks for the lightest one: its load; or, with a device for
 * each set, when that would be done with the cell. */
static double weight_of(const struct division *d, int64_t set, const struct ha_fuse_need *cell,
                        bool by_speed)
{
    const struct ha_fuse_group *group = d->group;
    double load = d->sets[set].load;

    if (!by_speed)
        return load;
    load += cell->cost + (d->sets[set].cells == 0 ? group->cells[0].shared : 0);
    return load / speed_of(group, set < d->devices ? set : d->devices - 1);
}

/* The lightest set that takes the cell, the first of equals; -1: none does. */
static int64_t lightest(const struct division *d, const struct ha_fuse_need *cell)
{
    int64_t best = ha_least_top(&d->lightest);

    if (fits(d->group, &d->sets[best], cell))
        return best;
    best = -1;
    count_work(d->group, d->n_sets);
    for (int64_t s = 0; s < d->n_sets; s++)
        if ((best < 0 || d->weights[s] < d->weights[best]) && fits(d->group, &d->sets[s], cell))
            best = s;
    return best;
}

static void weigh_sets(struct division *d, const struct ha_fuse_need *cell, bool by_speed)
{
    for (int64_t s = 0; s < d->n_sets; s++)
        d->weights[s] = weight_of(d, s, cell, by_speed);
    count_work(d->group, d->n_sets);
    ha_least_fill(&d->lightest, d->n_sets);
}

/* The heaviest cell first, each to the lightest of `wanted` sets that takes it; a
 * cell that none takes begins one more.  By speed the sets are weighed anew for a cell that costs
 * other than the one before, which is seldom. */
static void divide(struct division *d, int64_t wanted, bool by_speed)
{
    const struct ha_fuse_group *group = d->group;
    const struct ha_fuse_need *last = NULL; /* for which the sets were weighed */
    int64_t empty = 0; /* sets before this one have cells, when cells go to the lightest */

    count_work(group, PUT * group->count);
    d->n_sets = wanted;
    memset(d->sets, 0, (size_t)group->count * sizeof *d->sets);
    for (int64_t i = 0; i < group->count; i++) {
        const struct ha_fuse_need *cell = &group->cells[d->heavy[i]];
        bool alone = !by_speed && empty < wanted; /* nothing is lighter than an empty set */
        int64_t best;

        if (!alone && (!last || (by_speed && last->cost != cell->cost))) {
            weigh_sets(d, cell, by_speed);
            last = cell;
        }
        best = alone ? empty++ : lightest(d, cell);
        if (best < 0)
            best = d->n_sets++;
        put(&d->sets[best], cell, group->cells[0].shared);
        d->set_of[d->heavy[i]] = best;
        if (alone)
            continue;
        d->weights[best] = weight_of(d, best, cell, by_speed);
        if (best == d->lightest.count)
            ha_least_add(&d->lightest);
        else
            ha_least_moved(&d->lightest, best);
    }
}

/* Sort heavy[] by falling value, ties by index: few elements, no memory. */
static void order(int64_t *places, int64_t count, const double *values)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t at = i;

        while (at > 0 && values[places[at - 1]] < values[i]) {
            places[at] = places[at - 1];
            at--;
        }
        places[at] = i;
    }
}

/* Memory that choosing needs, in one piece each. */
struct scratch {
    struct set *sets;
    double *loads, *free_at, *keys;
    int64_t *cells, *places, *set_of;
    struct ha_least least; /* of keys */
};

/* When each of the devices [0, count) would be done with the load. */
static void weigh_devices(const struct ha_fuse_group *group, struct scratch *s, double load,
                          int64_t count)
{
    for (int64_t k = 0; k < count; k++)
        s->keys[k] = s->free_at[k] + load / speed_of(group, k);
    count_work(group, count);
    ha_least_fill(&s->least, count);
}

/* Sets in the order of places, each to the device where it is done first; when the last is done.
 * device_of (by place) may be NULL.  Of idle devices the first is the fastest, so that those that
 * have work are always the first ones. */
static double last_end(const struct ha_fuse_group *group, struct scratch *s, int64_t sets,
                       int64_t devices, int64_t *device_of)
{
    double end = 0, weighed = -1; /* the load for which keys were worked out */
    int64_t busy = 0;
    bool even;

    if (devices > sets)
        devices = sets;
    even = !group->speeds || group->speeds[devices - 1] >= group->speeds[0];
    memset(s->free_at, 0, (size_t)devices * sizeof *s->free_at);
    count_work(group, PUT * sets);
    for (int64_t i = 0; i < sets; i++) {
        double load = s->loads[s->places[i]];
        bool idle = even && i < devices; /* the next one; nothing is sooner */
        int64_t device = i, choice = busy < devices ? busy + 1 : devices;

        if (!idle && load != weighed) {
            weigh_devices(group, s, load, choice);
            weighed = load;
        } else if (!idle && s->least.count < choice) {
            s->keys[choice - 1] = load / speed_of(group, choice - 1);
            ha_least_add(&s->least);
        }
        if (!idle)
            device = ha_least_top(&s->least);
        busy += device == busy;
        s->free_at[device] += load / speed_of(group, device);
        end = s->free_at[device] > end ? s->free_at[device] : end;
        if (!idle) {
            s->keys[device] = s->free_at[device] + load / speed_of(group, device);
            ha_least_moved(&s->least, device);
        }
        if (device_of)
            device_of[i] = device;
    }
    return end;
}

static void scratch_free(struct scratch *s)
{
    free(s->sets);
    free(s->loads);
    free(s->free_at);
    free(s->keys);
    free(s->cells);
    free(s->places);
    free(s->set_of);
    free(s->least.heap);
    free(s->least.place);
}

static int scratch_make(struct scratch *s, int64_t count)
{
    *s = (struct scratch){.sets = ha_calloc(count, sizeof *s->sets),
                          .loads = ha_calloc(count, sizeof *s->loads),
                          .free_at = ha_calloc(count, sizeof *s->free_at),
                          .keys = ha_calloc(count, sizeof *s->keys),
                          .cells = ha_calloc(count, sizeof *s->cells),
                          .places = ha_calloc(count, sizeof *s->places),
                          .set_of = ha_calloc(count, sizeof *s->set_of),
                          .least = {.heap = ha_calloc(count, sizeof *s->least.heap),
                                    .place = ha_calloc(count, sizeof *s->least.place)}};
    s->least.keys = s->keys;
    if (s->sets && s->loads && s->free_at && s->keys && s->cells && s->places && s->set_of &&
        s->least.heap && s->least.place)
        return 0;
    scratch_free(s);
    return -ENOMEM;
}

/* Drop sets without cells and number the others by falling load. */
static void renumber(struct division *d, struct scratch *s)
{
    int64_t kept = 0;

    for (int64_t i = 0; i < d->n_sets; i++)
        s->loads[i] = d->sets[i].cells > 0 ? d->sets[i].load : -1;
    order(s->places, d->n_sets, s->loads);
    count_work(d->group, d->n_sets * d->n_sets / SORTED);
    while (kept < d->n_sets && s->loads[s->places[kept]] >= 0)
        kept++;
    for (int64_t i = 0; i < d->n_sets; i++)
        s->least.place[s->places[i]] = i; /* its number, while nothing else needs the memory */
    for (int64_t c = 0; c < d->group->count; c++)
        d->set_of[c] = s->least.place[d->set_of[c]];
    for (int64_t i = 0; i < kept; i++)
        d->sets[i].load = s->loads[s->places[i]];
    for (int64_t i = 0; i < kept; i++)
        s->places[i] = i;
    d->n_sets = kept;
}

static double finish_of(struct division *d, struct scratch *s, int64_t devices)
{
    for (int64_t i = 0; i < d->n_sets; i++)
        s->loads[i] = d->sets[i].load;
    return last_end(d->group, s, d->n_sets, devices, NULL);
}

/* What choosing has found so far. */
struct best {
    double finish;
    int64_t sets; /* 0: nothing yet */
    int64_t *set_of;
};

/* Later ones have more sets, so more work: they have to end sooner. */
static void weigh(struct division *d, struct scratch *s, int64_t wanted, bool by_speed,
                  struct best *best)
{
    double finish;

    divide(d, wanted, by_speed);
    renumber(d, s);
    finish = finish_of(d, s, d->devices);
    if (best->sets > 0 && finish >= best->finish * (1 - SAME))
        return;
    best->finish = finish;
    best->sets = d->n_sets;
    memcpy(best->set_of, d->set_of, (size_t)d->group->count * sizeof *best->set_of);
}

/* The next number of sets worth weighing: all small ones from the least on, powers of two, the
 * devices, each cell by itself. */
static int64_t next_wanted(int64_t wanted, int64_t least, int64_t count, int64_t devices)
{
    int64_t next = wanted < 16 ? wanted + 1 : wanted * 2;

    if (next < least)
        next = least;
    if (devices > wanted && devices < next)
        next = devices;
    if (next > count && wanted < count)
        next = count;
    return next;
}

/* Sets that memory, and the most that one may have, make necessary: fewer need not be tried. */
static int64_t least_sets(const struct ha_fuse_group *group)
{
    int64_t most = most_cells(group), least = (group->count + most - 1) / most;
    double room = (double)group->memory_bytes - (double)group->cells[0].shared_bytes, bytes = 0;
    int64_t pass = group->cells[0].pass_bytes;

    if (group->memory_bytes <= 0 || group->cells[0].shared_bytes <= 0)
        return least;
    for (int64_t i = 0; i < group->count; i++) {
        bytes += (double)group->cells[i].bytes;
        pass = group->cells[i].pass_bytes < pass ? group->cells[i].pass_bytes : pass;
    }
    room -= (double)pass;
    if (room <= 0 || bytes / room >= (double)group->count)
        return group->count;
    return bytes / room > (double)least ? (int64_t)ceil(bytes / room) : least;
}

/* What is known of every division before it is made. */
struct bounds {
    double total;          /* cost of all cells */
    double fastest, speed; /* of one device, of all of them together */
    int64_t pivot;         /* a set for each device */
    double pivot_finish;
};

static struct bounds find_bounds(struct division *d, struct scratch *s)
{
    const struct ha_fuse_group *group = d->group;
    struct bounds b = {.fastest = speed_of(group, 0), .pivot_finish = INFINITY};

    for (int64_t i = 0; i < group->count; i++)
        b.total += group->cells[i].cost;
    for (int64_t k = 0; k < d->devices; k++)
        b.speed += speed_of(group, k);
    b.pivot = d->devices < group->count ? d->devices : group->count;
    if (b.pivot <= 2)
        return b;
    divide(d, b.pivot, false);
    renumber(d, s);
    b.pivot_finish = finish_of(d, s, d->devices);
    return b;
}

/* So few sets for so many devices that the heaviest one ends later than the pivot's do; of those
 * that memory does not divide further. */
static bool too_few(const struct division *d, const struct bounds *b, int64_t wanted)
{
    double shared = d->group->cells[0].shared;

    return wanted < b->pivot &&
           (shared + b->total / (double)wanted) / b->fastest > b->pivot_finish * (1 + SAME);
}

/* So many that the work in all takes longer than the best does. */
static bool too_many(const struct division *d, const struct bounds *b, int64_t wanted,
                     const struct best *best)
{
    double work = d->group->cells[0].shared * (double)wanted + b->total;

    return best->sets > 0 && work / b->speed >= best->finish * (1 - SAME);
}

int64_t ha_fuse_choose(const struct ha_fuse_group *group, int64_t devices, int64_t *set_of,
                       double *ret_finish)
{
    struct division d = {.group = group, .devices = devices};
    struct best best = {.set_of = set_of};
    struct bounds bounds;
    struct scratch s;
    int64_t first = group->mode == HA_FUSE_NEVER ? group->count : 1, least = least_sets(group);
    int64_t last = group->mode == HA_FUSE_ALWAYS ? 1 : group->count;
    bool uneven = group->speeds && group->speeds[devices - 1] < group->speeds[0];

    if (scratch_make(&s, group->count) < 0)
        return -ENOMEM;
    for (int64_t i = 0; i < group->count; i++)
        s.loads[i] = group->cells[i].cost;
    order(s.cells, group->count, s.loads);
    count_work(group, group->count * group->count / SORTED);
    d.sets = s.sets;
    d.set_of = s.set_of;
    d.heavy = s.cells;
    d.weights = s.keys;
    d.lightest = s.least;
    bounds = first < last ? find_bounds(&d, &s) : (struct bounds){0};
    for (int64_t wanted = first; wanted <= last;
         wanted = next_wanted(wanted, least, group->count, devices)) {
        if (first < last && too_many(&d, &bounds, wanted, &best))
            break;
        if (wanted > least && wanted < last && too_few(&d, &bounds, wanted))
            continue;
        weigh(&d, &s, wanted, false, &best);
        if (uneven && wanted > 1 && wanted <= devices)
            weigh(&d, &s, wanted, true, &best);
    }
    scratch_free(&s);
    if (ret_finish)
        *ret_finish = best.finish;
    return best.sets;
}

int ha_fuse_place(const struct ha_fuse_group *group, const int64_t *set_of, int64_t sets,
                  int64_t devices, int64_t *device_of, double *ret_finish)
{
    struct scratch s;
    double end;

    if (scratch_make(&s, group->count) < 0)
        return -ENOMEM;
    for (int64_t i = 0; i < group->count; i++)
        put(&s.sets[set_of[i]], &group->cells[i], group->cells[0].shared);
    for (int64_t i = 0; i < sets; i++)
        s.loads[i] = s.sets[i].load;
    order(s.places, sets, s.loads);
    count_work(group, sets * sets / SORTED);
    end = last_end(group, &s, sets, devices, s.cells);
    for (int64_t i = 0; device_of && i < sets; i++)
        device_of[s.places[i]] = s.cells[i];
    scratch_free(&s);
    if (ret_finish)
        *ret_finish = end;
    return 0;
}

/* ---- what cells need ------------------------------------------------------------------ */

void ha_fuse_model_read(const struct ha_json *plan, int64_t layers, struct ha_fuse_model *ret_model)
{
    const struct ha_json *strategies = ha_json_get(plan, "strategies");
    const struct ha_json *full = ha_json_get(strategies, "full");
    const struct ha_json *global = ha_json_get(strategies, "global");
    const char *global_layers = ha_json_string(ha_json_get(global, "layers"), "0");
    int64_t first = strtoll(global_layers, NULL, 10);
    double most = ha_json_real(ha_json_get(full, "lockstep_flops_per_pair"), 0);
    double least = ha_json_real(ha_json_get(global, "lockstep_flops_per_pair"), 0);

    /* A pass of 2; own passes forward and back of as much each, all of it in the layers. */
    *ret_model = (struct ha_fuse_model){.layers = layers,
                                        .reference = 2,
                                        .cost = 4,
                                        .cost_layer = layers > 0 ? 4 / (double)layers : 0};
    if (first <= 0 || least <= 0 || most < least)
        return;
    ret_model->reference = ha_json_real(ha_json_get(full, "reference_flops_per_pair"), 0);
    ret_model->cost = most;
    ret_model->cost_layer = (most - least) / (double)first;
    ret_model->weight_bytes = ha_json_int(ha_json_get(full, "weight_bytes"), 0);
    ret_model->pass_bytes = ha_json_int(ha_json_get(full, "activation_bytes"), 0);
    ret_model->adapter_bytes = ha_json_int(ha_json_get(full, "adapter_bytes"), 0);
}

struct ha_fuse_need ha_fuse_train_need(const struct ha_fuse_model *model, int64_t lowest,
                                       int64_t n_layers, int64_t rank)
{
    double layers = model->layers > 0 ? (double)model->layers : 1;
    double share = (double)n_layers / layers * (double)rank / RANK;
    double cost = model->cost - model->cost_layer * (double)lowest;

    return (struct ha_fuse_need){
        .shared = model->reference,
        .cost = cost > 0 ? cost : 0,
        .shared_bytes = model->weight_bytes,
        .pass_bytes = model->pass_bytes,
        .bytes = (int64_t)(share * (double)model->adapter_bytes),
    };
}

struct ha_fuse_need ha_fuse_generate_need(const struct ha_fuse_model *model)
{
    return (struct ha_fuse_need){
        .shared = model->reference * SHARED_GUESS,
        .cost = model->reference,
        .shared_bytes = model->weight_bytes,
        .pass_bytes = model->pass_bytes,
        .bytes = model->adapter_bytes / 4, /* values alone: no gradient, no moments */
    };
}
