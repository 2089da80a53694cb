/* stage_key.h - the name of a stage's result
 *
 * A stage key is the SHA-256 over the canonical JSON of everything that
 * determines the stage's result.  Keys are chained: generate holds the train
 * key (or the model's digest for base), judge holds the generate key, and train
 * the probe key where the probe chooses its layers: the rule then stands for the
 * layers, which are not known yet.  Two
 * stages with one key have one result, in any sweep; so whatever changes no
 * result (limits, budgets, resources, names, how often checkpoints are written)
 * stays out, by the `reads` column of the settings' tables. */
#ifndef HA_COMMON_CONF_STAGE_KEY_H
#define HA_COMMON_CONF_STAGE_KEY_H

#include "common/base/hash.h"
#include "common/conf/grid.h"

/* Raised whenever the engine's arithmetic changes a result, or the form of the
 * keys changes. */
enum { HA_NUMERICS_VERSION = 1 };

/* Digests are 64 lower-case hexadecimal digits. */
struct ha_stage_digests {
    const char *model;        /* config.json, generation_config.json and weights */
    const char *tokenizer;    /* tokenizer.json and tokenizer_config.json */
    const char *const *train; /* one per sweep->data.train, of the file as stored */
    int64_t train_count;
    const char *const *eval; /* one per sweep->data.eval */
    int64_t eval_count;
};

/* -EINVAL when a digest is missing or malformed, or the cell has no such stage;
 * so for the others.  Equal for all cells of a model with the same loss. */
int ha_stage_key_probe(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                       const struct ha_stage_digests *digests, char ret_key[HA_SHA256_HEX_BYTES],
                       struct ha_error *err);

/* probe_key: of this cell where its layers are a rule; else it is not read. */
int ha_stage_key_train(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                       const struct ha_stage_digests *digests, const char *probe_key,
                       char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err);

/* train_key: of this cell; NULL for base. */
int ha_stage_key_generate(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                          const struct ha_stage_digests *digests, const char *train_key,
                          char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err);

/* What the base model's log-probs of the training pairs depend on, as far as a grid
 * tells: model, tokenizer, data, selection, template, truncation, order and packs.
 * Equal for cells, in any sweep, whose references are the same numbers on the
 * same backend. */
int ha_stage_key_reference(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                           const struct ha_stage_digests *digests,
                           char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err);

/* The same without order and packs: equal for cells whose references differ by rounding at most. */
int ha_stage_key_reference_any(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                               const struct ha_stage_digests *digests,
                               char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err);

/* Equal for cells of a sweep that one train job may hold: those of one model that
 * see the same pairs in the same order and packs, and are evaluated together. */
int ha_stage_key_train_together(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                                const struct ha_stage_digests *digests,
                                char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err);

/* Equal for cells of a sweep whose answers one generate job may make: those of one
 * model with equal prompts and generation settings, base included. */
int ha_stage_key_generate_together(const struct ha_grid *grid, const struct ha_grid_cell *cell,
                                   const struct ha_stage_digests *digests,
                                   char ret_key[HA_SHA256_HEX_BYTES], struct ha_error *err);

/* prompt_digest: of the judge prompt's bytes, dimensions and parser version;
 * NULL: the project's own, named by judge->prompt alone. */
int ha_stage_key_judge(const struct ha_sweep_judge *judge, const char *prompt_digest,
                       const char *generate_key, char ret_key[HA_SHA256_HEX_BYTES],
                       struct ha_error *err);

#endif
