/* contract.h - what a daemon and its attempt process say to each other
 *
 * The daemon makes a folder for the attempt, writes job.json (the spec) into
 * it, puts the inputs below inputs/, and starts
 *
 *     ha-attempt job --dir FOLDER --contract-fd N
 *
 * with the folder as working directory, in its own process group.  N is the
 * write end of a pipe: the attempt writes one JSON object per line and never
 * blocks on anything else of the daemon.  The other direction is signals:
 * SIGTERM = stop: write a checkpoint, report it, exit HA_ATTEMPT_STOPPED.  A
 * probe takes minutes and has no checkpoint: it just stops.  SIGURG = it did not do so in time and
 * is about to be killed: print where each thread stands (attempt/stacks.h).
 * Files that a line names are complete and synced before the line is written
 * and never change afterwards; their paths are relative to the folder.  Texts hold no zero byte:
 * U+FFFD stands for one.
 *
 * With --serve the process takes further jobs of its model, one at a time.  When a job is done it
 * says "waits" instead of ending, with the model loaded; it then reads one line from its standard
 * input, the folder of the next job, makes that its working directory and does it as a process of
 * its own would, to the bit: what it held (backend, weights, tokenizer) is used again only where
 * the files, the backend and the threads are the same, after a product on the device came out
 * right.  The end of its input, and SIGTERM, end it.  Only a job that was done leads to "waits":
 * failed, refused or stopped, the process ends with the exit code, and so does one whose device has
 * failed after its job.  One that ends before the first line of a further job has not begun it.
 *
 * A job with ranks > 1 is a gang of so many of these processes, each with --rank R; those of one
 * worker are in the same folder, and use the devices 0, 1, ... of the backend.  A rank prepares,
 * says that it is ready, and then reads one line from its standard input: the id that rank 0 has
 * made, in hexadecimal, which comes once all ranks of all workers are ready.  A gang serves one
 * job.  Rank 0 writes all files and all lines but "gang", "phase", "progress" and
 * "error".  SIGTERM to one rank stops all, after a checkpoint; SIGUSR1 = give up at once.
 *
 * Lines (type, then fields):
 *
 *   "phase"     phase ("load", "step", "evaluate", "measure", "probe", "generate")
 *   "progress"  step, steps (of the phase), tokens_per_second, and where they are counted
 *               pairs_per_second, flops_per_second, utilisation, saved (the part of the plain
 *               method's FLOPs that was not needed; generate: of the answers that are
 *               finished, all cells together); see the summaries
 *   "metric"    cell, step, values {name: number}  (names as TRL logs them)
 *   "answer"    cell, prompt, sample, prompt_text, text, raw, finish, prompt_tokens, tokens
 *   "probe"     cell, block, layer, layers, module, norm, parameters, pairs: after a
 *               whole probe, one for each module of each layer and of each block (see
 *               worker/dpo/probe.h for the definition).  norm: the mean over `pairs`
 *               pairs of the Frobenius norm of the gradient; parameters: weights under
 *               it.  layer: from 0, the first of `layers`.  block: "" for one layer, else
 *               "local", "mid", "global", "full".  module: "q_proj", "k_proj", "v_proj",
 *               "o_proj", or "all" for the four together
 *   "artifact"  cell (0: whole attempt), kind, name, path, step
 *               (kind: "adapter", "checkpoint", "reference").  A reference is the base
 *               model's log-probs, of cell 0, whose name is its key in hexadecimal: the
 *               digest of everything its numbers depend on (worker/dpo/reference.h).  A
 *               later train job of the same model and data takes it as "reference"
 *   "cell"      cell, done (bool), reason, permanent (bool), summary {...}
 *   "gang"      state, and with it of a rank of a gang: "ready" (prepared; of rank 0: id, the
 *               communicator's, in hexadecimal), "failed" (started, finished: collectives so far;
 *               followed: because others had failed, or did not answer)
 *   "model"     bytes (of its weights, as stored), read_bytes (of these, opened or copied now; 0:
 *               the job before had left them), device_bytes (that the GPU holds; 0: the weights
 *               lie in mapped files), seconds: model and tokenizer are there
 *   "waits"     the job is done, and the process stays for the next (--serve)
 *   "error"     text: why the process is about to end with an error code
 *
 * job.json:
 *
 *   {"kind":     "train" | "probe" | "generate",
 *    "sweep":    name,
 *    "job":      id,
 *    "model":    {"name", "path", "hub_id" (or ""), "template": "hh" | "chat" | a format},
 *    "data":     {"train": [paths], "eval": [paths]},     below inputs/
 *    "settings": {"data", "train", "probe", "generate"},  as common/conf/run_settings.h; what
 *                                                         the cells have in common
 *    "threads":  n,                                       0: one per core
 *    "backend":  "auto" | "cpu" | "cuda",
 *    "ranks":    n,                                       of a gang; 1: none.
 *                                                         "threads" are those of a rank
 *    "first_rank": n,                                     of those of this worker; 0 where it is
 *                                                         not given
 *    "gang_wait_ms": n,                                   that a rank waits for the others
 *    "time_alone_steps": n,                               train, several cells: steps to measure
 *                                                         of each by itself; 0: none
 *    "digests":  file or null,                            cache of files' digests
 *                                                         (common/io/digest.h)
 *    "choices":  folder or null,                          what GPUs were timed to choose
 *                                                         (worker/attempt/choices.h)
 *    "reference": file or null,                           train: below inputs/; one that is
 *                                                         damaged or has another key is left
 *                                                         aside, with the reason in the log
 *    "cells":    [{"id", "name",
 *                  "layers":     [ints],                  trained ones; [] for base, probe
 *                  "settings":   {...},                   the same form: members that replace
 *                                                         those of the common settings
 *                  "adapter":    folder or null,          generate: below inputs/
 *                  "checkpoint": file or null}],          train: resume from here
 *                                                         A probe has one cell: its norms
 *                                                         hold for all cells of the model
 *    "skip_answers": {"CELL ID": [[prompt, sample], ...]}}   answers that are stored already
 *
 * Cells of a train job may have checkpoints of different steps, or none: the job
 * goes on from the lowest step, and a cell that is further joins when it gets there.
 *
 * summary of a trained cell, beside the counts of its pairs and the last eval_...
 * metrics.  Sums go on from the checkpoint: a step that was repeated counts once.
 *
 *   trainable_parameters, steps, precision, backend, plan, reference (the key)
 *   reference_offset       where train.reference = "any" took references of another plan: by how
 *                          much their log-prob sums differ at most from those of this plan, over
 *                          the pairs of the first step.  Not there: they are of this plan
 *   train_seconds_own      forward, backward and optimizer of this cell; evaluation is in
 *                          wall_seconds alone
 *   train_seconds_shared   the cell's equal part of the passes that cells share
 *   seconds                the sum of the two
 *   seconds_alone_per_step where "time_alone_steps" asked for it: of a step of this cell by
 *                          itself, nothing shared, the references known; the mean of steps
 *                          that are spread evenly over the training and change nothing
 *   load_seconds           of this attempt: model, data, tokenisation
 *   wall_seconds           of this attempt, from its start to the cell's end
 *   cells_in_job           that shared the passes
 *   ranks                  processes of the gang that trained; 1: alone.  FLOPs, bytes and tokens
 *                          are of all of them, a step's seconds those of its slowest
 *   pairs_trained          pairs of all steps, each epoch anew
 *   tokens                 tokens of this cell's own passes
 *   flops                  done for the cell, its part of shared passes included
 *   flops_plain            8 P + 6 h for each padded token, what the plain method (TRL: policy,
 *                          reference, recomputation, gradient through all layers; each
 *                          logical micro-batch padded to its longest sequence) does
 *   saved                  1 - flops / flops_plain
 *   memory_planned         bytes that the plan of the attempt adds up to (worker/dpo/plan.h)
 *   memory_peak            the most bytes that the process had of its own (no mapped files),
 *                          by samples between packs and phases; on a GPU, that it had there
 *   layers_run_again       in the backward pass, to fit the memory
 *   bytes_moved            read and written by the matrix products and the attention
 *   pairs_per_second, tokens_per_second, flops_per_second   over `seconds`
 *   peak_flops_per_second  what the backend did at best in a matrix product, measured at this
 *                          attempt's start (kernels/peak.h); 0: not known
 *   utilisation            flops_per_second over that
 *
 * A probe's has pairs_probed, tokens, seconds, probe_seconds, flops, activation_bytes,
 * memory_planned, memory_peak, recomputed_layers, ranks, weight_shards, precision and backend; of a
 * gang FLOPs and tokens are of all ranks.
 *
 * summary of a generated cell; work is that of this attempt, without the answers that
 * were stored already:
 *
 *   answers                all of the cell, the stored ones included
 *   prompts, prompts_dropped, prompts_seen_in_training, cut_by_the_limit
 *   prompt_tokens, tokens  of the answers; tokens: new ones, without end tokens
 *   seconds                the cell's part of the attempt's time since the phase
 *                          "generate" began: steps that cells share in equal parts for
 *                          each answer, packs of prompts by the prompts' tokens
 *   wall_seconds           from that beginning to the cell's end
 *   cells_in_job           that shared the queue
 *   ranks                  processes of the gang that answered; 1: alone.  FLOPs, bytes and tokens
 *                          are of all of them; they work at the same time, so that seconds are
 *                          those of all over their number, and utilisation is of all peaks
 *   weight_shards, weights_gathered_bytes   ranks that shared the weights (1: they were whole), and
 *                          what this one got from the others
 *   flops, bytes_moved     done for the cell, divided as `seconds` is
 *   flops_plain            what the plain method (Transformers' generate: the variant
 *                          alone, batches of 8 in the prompts' order, padded to the
 *                          longest prompt and run to the longest answer) does
 *   saved                  1 - flops / flops_plain
 *   memory_planned, memory_peak   as above (worker/attempt/generation_plan.h)
 *   tokens_per_second, flops_per_second   over `seconds`
 *   peak_flops_per_second, utilisation    as above
 *   batch_invariant        no rounding of an answer could hang on what was made beside it:
 *                          generate.batch_invariant was on, or the backend was a CPU
 *   precision, backend
 */
#ifndef HA_WORKER_CONTRACT_H
#define HA_WORKER_CONTRACT_H

enum ha_attempt_exit {
    HA_ATTEMPT_DONE = 0,
    HA_ATTEMPT_FAILED = 1, /* another attempt may succeed */
    HA_ATTEMPT_USAGE = 2,
    HA_ATTEMPT_STOPPED = 75, /* stopped as asked, after a checkpoint */
    HA_ATTEMPT_REFUSED =
        78, /* an error that cannot heal: bad model file, bad data, out of memory by plan */
    HA_ATTEMPT_STARVED = 79 /* memory ran out, of the device or the host, against the plan */
};

#define HA_ATTEMPT_SPEC_FILE "job.json"

#endif
