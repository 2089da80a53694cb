/* blocks.h - which layers a strategy trains
 *
 * The paper, Appendix A: with N layers, n = N div 3 and r = N mod 3, the local
 * block is the first n + [r > 0] layers, mid the next n + [r > 1], global the
 * rest; full is all of them; base none.  Layers count from 0.
 *
 * "auto:K" is no list of layers but a rule: the K neighbouring layers in which
 * a probe of the model found most of the loss's gradient. */
#ifndef HA_COMMON_CONF_BLOCKS_H
#define HA_COMMON_CONF_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

struct ha_error;

enum { HA_LAYERS_MAX = 4096 };

/* Layers in rising order, each once.  Owned: end with ha_layers_clear. */
struct ha_layers {
    int64_t *items;
    int64_t count;
};

/* The block of a built-in strategy ("local", "mid", "global") as a half-open
 * range; "full" is 0..N, "base" is empty.  false for another name. */
bool ha_blocks_range(const char *strategy, int64_t layers, int64_t *ret_first, int64_t *ret_end);

bool ha_blocks_builtin(const char *strategy);

/* Parse "18-27", "0-3,7", "5".  total: the model's layers, or 0 when they are
 * not known yet (then only the form is checked).  -EINVAL says what is wrong. */
int ha_layers_parse(const char *text, int64_t total, struct ha_layers *ret_layers,
                    struct ha_error *err);

/* Is it written as the rule "auto:K"?  spec may be NULL. */
bool ha_layers_are_auto(const char *spec);

/* Its K.  total as above: a model has at least K layers. */
int ha_layers_parse_auto(const char *spec, int64_t total, int64_t *ret_count, struct ha_error *err);

/* The `count` neighbouring layers with the largest sum of values[total], and
 * their share of the sum of all (0 where that is 0); the lowest of equal ones.
 * -EINVAL: 1 <= count <= total does not hold, or a value is negative or no
 * number. */
int ha_layers_choose(const double *values, int64_t total, int64_t count, int64_t *ret_first,
                     double *ret_share, struct ha_error *err);

/* The layers of a strategy: spec NULL means the built-in of that name.  None for
 * "auto:K", which is checked. */
int ha_layers_of(const char *strategy, const char *spec, int64_t total,
                 struct ha_layers *ret_layers, struct ha_error *err);

/* "0-10", "0-3,7"; "none" when empty.  The caller frees it. */
char *ha_layers_text(const struct ha_layers *layers);

void ha_layers_clear(struct ha_layers *layers);

#endif
