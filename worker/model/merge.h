/* merge.h - an adapter added into the weights of a model directory
 *
 * W becomes W + scale * B A for each adapted linear layer: the product in f32,
 * the sum in f32, rounded once to the type that W has in its file, which is
 * what PEFT 0.20's merge_and_unload does on a CPU.  Everything else is copied. */
#ifndef HA_WORKER_MODEL_MERGE_H
#define HA_WORKER_MODEL_MERGE_H

struct ha_backend;
struct ha_error;

/* Write the merged model into out_dir: weight files of the same names and
 * tensors as model_dir's, the index of shards, tokenizer files, and config.json
 * last, so that a directory that has one is complete.  out_dir is made; -EEXIST
 * where it has a config.json.  One tensor is in memory at a time.  -ERANGE
 * (naming the tensor) where a merged weight would not be a finite number.
 * The backend must be the CPU's. */
int ha_model_merge(struct ha_backend *backend, const char *model_dir, const char *adapter_dir,
                   const char *out_dir, struct ha_error *err);

#endif
