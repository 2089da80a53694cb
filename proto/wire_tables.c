/* The correspondence of ha.proto and wire.h, field by field.  A member that is
 * missing, out of order or of another type fails the unit test that walks these
 * tables beside protobuf-c's descriptors. */
#include "proto/wire_table.h"

#include <stdint.h>

#include "proto/ha.pb-c.h"
#include "proto/wire.h"
#include "proto/wire_table_macros.h"

/* One member per line, to be compared with ha.proto. */
/* clang-format off */
static const struct wire_field error_fields[] = {
    PLAIN(error, code, ANY),
    PLAIN(error, text, ANY),
};
TYPE(error);

static const struct wire_field epoch_fields[] = {
    PLAIN(epoch, generation, ANY),
    PLAIN(epoch, number, ANY),
};
TYPE(epoch);

static const struct wire_field job_ref_fields[] = {
    PLAIN(job_ref, job, ANY),
    SUB(job_ref, epoch, epoch),
};
TYPE(job_ref);

static const struct wire_field hello_fields[] = {
    PLAIN(hello, role, ANY),
    PLAIN(hello, name, ANY),
    PLAIN(hello, instance, ANY),
    PLAIN(hello, machine, ANY),
    PLAIN(hello, version, ANY),
    PLAIN(hello, slots, ANY),
    PLAIN(hello, backend, ANY),
    PLAIN(hello, pid, COUNT),
    PLAIN(hello, host, ANY),
    PLAIN(hello, memory_bytes, COUNT),
    LIST(hello, labels, ANY),
    PLAIN(hello, cpus, ANY),
    PLAIN(hello, host_memory_bytes, COUNT),
    PLAIN(hello, gpus, ANY),
    PLAIN(hello, gpu_memory_bytes, COUNT),
    SUBS(hello, kept, job_ref),
};
TYPE(hello);

static const struct wire_field hello_reply_fields[] = {
    PLAIN(hello_reply, version, ANY),
    PLAIN(hello_reply, generation, ANY),
    PLAIN(hello_reply, heartbeat_ms, ANY),
    PLAIN(hello_reply, lost_ms, ANY),
    PLAIN(hello_reply, files_endpoint, ANY),
    PLAIN(hello_reply, name, ANY),
};
TYPE(hello_reply);

static const struct wire_field running_fields[] = {
    PLAIN(running, job, ANY),
    SUB(running, epoch, epoch),
    PLAIN(running, phase, ANY),
    PLAIN(running, step, COUNT),
    PLAIN(running, steps, COUNT),
    PLAIN(running, tokens_per_second, FINITE),
    PLAIN(running, utilisation, FINITE),
};
TYPE(running);

static const struct wire_field device_fields[] = {
    PLAIN(device, index, ANY),
    PLAIN(device, name, ANY),
    PLAIN(device, uuid, ANY),
    PLAIN(device, memory_bytes, ANY),
    PLAIN(device, memory_used_bytes, ANY),
    PLAIN(device, utilisation_percent, ANY),
    PLAIN(device, temperature_c, ANY),
    PLAIN(device, ecc_uncorrected, ANY),
    PLAIN(device, state, ANY),
    PLAIN(device, reason, ANY),
    PLAIN(device, since_ms, COUNT),
};
TYPE(device);

static const struct wire_field held_model_fields[] = {
    PLAIN(held_model, digest, ANY),
    PLAIN(held_model, name, ANY),
    PLAIN(held_model, bytes, COUNT),
    PLAIN(held_model, where, ANY),
    PLAIN(held_model, load_ms, COUNT),
};
TYPE(held_model);

static const struct wire_field heartbeat_fields[] = {
    PLAIN(heartbeat, free_slots, ANY),
    PLAIN(heartbeat, draining, ANY),
    SUBS(heartbeat, running, running),
    PLAIN(heartbeat, wall_ms, COUNT),
    SUBS(heartbeat, devices, device),
    PLAIN(heartbeat, places, ANY),
    PLAIN(heartbeat, gpus, ANY),
    SUBS(heartbeat, models, held_model),
};
TYPE(heartbeat);

static const struct wire_field heartbeat_reply_fields[] = {
    SUBS(heartbeat_reply, should_run, job_ref),
    PLAIN(heartbeat_reply, generation, ANY),
    PLAIN(heartbeat_reply, undrained_ms, COUNT),
    PLAIN(heartbeat_reply, rest_ms, ANY),
};
TYPE(heartbeat_reply);

static const struct wire_field grant_request_fields[] = {
    PLAIN(grant_request, job, ANY),
    SUB(grant_request, epoch, epoch),
};
TYPE(grant_request);

static const struct wire_field input_fields[] = {
    PLAIN(input, sha256, DIGEST),
    PLAIN(input, size, COUNT),
    PLAIN(input, path, INSIDE),
};
TYPE(input);

static const struct wire_field gang_fields[] = {
    PLAIN(gang, part, ANY),
    PLAIN(gang, parts, ANY),
    PLAIN(gang, first_rank, ANY),
    PLAIN(gang, ranks, ANY),
    PLAIN(gang, world, ANY),
};
TYPE(gang);

static const struct wire_field grant_fields[] = {
    PLAIN(grant, job, ANY),
    SUB(grant, epoch, epoch),
    PLAIN(grant, kind, ANY),
    PLAIN(grant, sweep, ANY),
    PLAIN(grant, spec_json, ANY),
    SUBS(grant, inputs, input),
    PLAIN(grant, model_path, ANY),
    PLAIN(grant, model_digest, DIGEST),
    PLAIN(grant, time_limit_s, COUNT),
    SUB(grant, gang, gang),
};
TYPE(grant);

static const struct wire_field rank_count_fields[] = {
    PLAIN(rank_count, rank, ANY),
    PLAIN(rank_count, started, COUNT),
    PLAIN(rank_count, finished, COUNT),
};
TYPE(rank_count);

static const struct wire_field rank_log_fields[] = {
    PLAIN(rank_log, path, ANY),
    PLAIN(rank_log, tail, ANY),
};
TYPE(rank_log);

static const struct wire_field gang_state_fields[] = {
    PLAIN(gang_state, job, ANY),
    SUB(gang_state, epoch, epoch),
    LIST(gang_state, ready, ANY),
    PLAIN(gang_state, id, ANY),
    PLAIN(gang_state, ended, ANY),
    PLAIN(gang_state, outcome, ANY),
    PLAIN(gang_state, reason, ANY),
    PLAIN(gang_state, followed, ANY),
    SUBS(gang_state, counts, rank_count),
    SUB(gang_state, log, rank_log),
    PLAIN(gang_state, cause, ANY),
};
TYPE(gang_state);

static const struct wire_field gang_order_fields[] = {
    PLAIN(gang_order, job, ANY),
    SUB(gang_order, epoch, epoch),
    PLAIN(gang_order, step, ANY),
    PLAIN(gang_order, id, ANY),
    PLAIN(gang_order, reason, ANY),
};
TYPE(gang_order);

static const struct wire_field attempt_metric_fields[] = {
    PLAIN(attempt_metric, cell, ANY),
    PLAIN(attempt_metric, step, COUNT),
    PLAIN(attempt_metric, name, ANY),
    PLAIN(attempt_metric, value, ANY),
};
TYPE(attempt_metric);

static const struct wire_field attempt_answer_fields[] = {
    PLAIN(attempt_answer, cell, ANY),
    PLAIN(attempt_answer, prompt, COUNT),
    PLAIN(attempt_answer, sample, ANY),
    PLAIN(attempt_answer, prompt_text, ANY),
    PLAIN(attempt_answer, text, ANY),
    PLAIN(attempt_answer, raw, ANY),
    PLAIN(attempt_answer, finish, ANY),
    PLAIN(attempt_answer, prompt_tokens, COUNT),
    PLAIN(attempt_answer, tokens, COUNT),
};
TYPE(attempt_answer);

static const struct wire_field attempt_artifact_fields[] = {
    PLAIN(attempt_artifact, cell, ANY),
    PLAIN(attempt_artifact, kind, ANY),
    PLAIN(attempt_artifact, name, INSIDE),
    PLAIN(attempt_artifact, sha256, DIGEST),
    PLAIN(attempt_artifact, size, COUNT),
    PLAIN(attempt_artifact, step, COUNT),
};
TYPE(attempt_artifact);

static const struct wire_field attempt_cell_fields[] = {
    PLAIN(attempt_cell, cell, ANY),
    PLAIN(attempt_cell, done, ANY),
    PLAIN(attempt_cell, reason, ANY),
    PLAIN(attempt_cell, permanent, ANY),
    PLAIN(attempt_cell, summary_json, ANY),
};
TYPE(attempt_cell);

static const struct wire_field attempt_end_fields[] = {
    PLAIN(attempt_end, outcome, ANY),
    PLAIN(attempt_end, reason, ANY),
    PLAIN(attempt_end, exit_code, ANY),
    PLAIN(attempt_end, cause, ANY),
    SUB(attempt_end, log, rank_log),
};
TYPE(attempt_end);

static const struct wire_field attempt_norm_fields[] = {
    PLAIN(attempt_norm, cell, ANY),
    PLAIN(attempt_norm, block, ANY),
    PLAIN(attempt_norm, layer, COUNT),
    PLAIN(attempt_norm, layers, COUNT),
    PLAIN(attempt_norm, module, ANY),
    PLAIN(attempt_norm, norm, MONEY),
    PLAIN(attempt_norm, parameters, COUNT),
    PLAIN(attempt_norm, pairs, COUNT),
};
TYPE(attempt_norm);

static const struct wire_field attempt_event_fields[] = {
    CHOICE(attempt_event, event, metric, attempt_metric),
    CHOICE(attempt_event, event, answer, attempt_answer),
    CHOICE(attempt_event, event, artifact, attempt_artifact),
    CHOICE(attempt_event, event, cell, attempt_cell),
    CHOICE(attempt_event, event, end, attempt_end),
    CHOICE(attempt_event, event, norm, attempt_norm),
};
static const struct wire_type attempt_event_type = {
    &ha__attempt_event__descriptor, sizeof(struct ha_wire_attempt_event),
    offsetof(struct ha_wire_attempt_event, kind), attempt_event_fields,
    COUNT_OF(attempt_event_fields)};

static const struct wire_field report_fields[] = {
    PLAIN(report, job, ANY),
    SUB(report, epoch, epoch),
    PLAIN(report, sequence, ANY),
    SUBS(report, events, attempt_event),
};
TYPE(report);

static const struct wire_field report_reply_fields[] = {
    PLAIN(report_reply, job, ANY),
    SUB(report_reply, epoch, epoch),
    PLAIN(report_reply, sequence, ANY),
    PLAIN(report_reply, stale, ANY),
    LIST(report_reply, missing, DIGEST),
};
TYPE(report_reply);

static const struct wire_field revoke_fields[] = {
    PLAIN(revoke, job, ANY),
    SUB(revoke, epoch, epoch),
    PLAIN(revoke, reason, ANY),
};
TYPE(revoke);

static const struct wire_field item_ref_fields[] = {
    PLAIN(item_ref, item, ANY),
    SUB(item_ref, epoch, epoch),
};
TYPE(item_ref);

static const struct wire_field items_request_fields[] = {
    PLAIN(items_request, max_items, ANY),
    PLAIN(items_request, lists_held, ANY),
    SUBS(items_request, held, item_ref),
};
TYPE(items_request);

static const struct wire_field judge_spec_fields[] = {
    PLAIN(judge_spec, judge, ANY),
    PLAIN(judge_spec, sweep, ANY),
    PLAIN(judge_spec, settings_json, ANY),
};
TYPE(judge_spec);

static const struct wire_field item_fields[] = {
    PLAIN(item, item, ANY),
    SUB(item, epoch, epoch),
    PLAIN(item, judge, ANY),
    PLAIN(item, sample, ANY),
    PLAIN(item, prompt_text, ANY),
    PLAIN(item, answer_text, ANY),
    PLAIN(item, reasks, ANY),
    PLAIN(item, last_fault, ANY),
    PLAIN(item, reply, ANY),
    PLAIN(item, reply_call, ANY),
};
TYPE(item);

static const struct wire_field items_grant_fields[] = {
    SUBS(items_grant, judges, judge_spec),
    SUBS(items_grant, items, item),
};
TYPE(items_grant);

static const struct wire_field items_begin_fields[] = {
    SUBS(items_begin, items, item_ref),
    LIST(items_begin, reserve, MONEY),
};
TYPE(items_begin);

static const struct wire_field begun_call_fields[] = {
    PLAIN(begun_call, item, ANY),
    PLAIN(begun_call, call, ANY),
};
TYPE(begun_call);

static const struct wire_field refused_item_fields[] = {
    PLAIN(refused_item, item, ANY),
    PLAIN(refused_item, reason, ANY),
};
TYPE(refused_item);

static const struct wire_field items_begin_reply_fields[] = {
    SUBS(items_begin_reply, calls, begun_call),
    SUBS(items_begin_reply, refused, refused_item),
};
TYPE(items_begin_reply);

static const struct wire_field judge_reply_fields[] = {
    PLAIN(judge_reply, item, ANY),
    SUB(judge_reply, epoch, epoch),
    PLAIN(judge_reply, call, ANY),
    PLAIN(judge_reply, http_status, ANY),
    PLAIN(judge_reply, raw, ANY),
    PLAIN(judge_reply, host, ANY),
    PLAIN(judge_reply, latency_ms, COUNT),
    PLAIN(judge_reply, prompt_tokens, COUNT),
    PLAIN(judge_reply, completion_tokens, COUNT),
    PLAIN(judge_reply, cost, MONEY),
    PLAIN(judge_reply, possibly_paid, ANY),
    PLAIN(judge_reply, error, ANY),
};
TYPE(judge_reply);

static const struct wire_field judge_replies_fields[] = {
    SUBS(judge_replies, replies, judge_reply),
};
TYPE(judge_replies);

static const struct wire_field score_fields[] = {
    PLAIN(score, dimension, ANY),
    PLAIN(score, value, SCORE),
    PLAIN(score, reason, ANY),
};
TYPE(score);

static const struct wire_field judge_outcome_fields[] = {
    PLAIN(judge_outcome, item, ANY),
    SUB(judge_outcome, epoch, epoch),
    PLAIN(judge_outcome, call, ANY),
    PLAIN(judge_outcome, kind, ANY),
    SUBS(judge_outcome, scores, score),
    LIST(judge_outcome, repairs, ANY),
    PLAIN(judge_outcome, fault, ANY),
    PLAIN(judge_outcome, retry_after_ms, COUNT),
    PLAIN(judge_outcome, flagged, ANY),
    PLAIN(judge_outcome, identity, DIGEST),
};
TYPE(judge_outcome);

static const struct wire_field judge_outcomes_fields[] = {
    SUBS(judge_outcomes, outcomes, judge_outcome),
};
TYPE(judge_outcomes);

static const struct wire_field judge_ack_fields[] = {
    LIST(judge_ack, calls, ANY),
    LIST(judge_ack, stale, ANY),
};
TYPE(judge_ack);

static const struct wire_field artifact_open_fields[] = {
    PLAIN(artifact_open, sha256, DIGEST),
    PLAIN(artifact_open, size, COUNT),
};
TYPE(artifact_open);

static const struct wire_field artifact_chunk_fields[] = {
    PLAIN(artifact_chunk, sha256, DIGEST),
    PLAIN(artifact_chunk, size, COUNT),
    PLAIN(artifact_chunk, offset, COUNT),
    PLAIN(artifact_chunk, data, CHUNK),
};
TYPE(artifact_chunk);

static const struct wire_field artifact_state_fields[] = {
    PLAIN(artifact_state, sha256, DIGEST),
    PLAIN(artifact_state, have, COUNT),
    PLAIN(artifact_state, complete, ANY),
    PLAIN(artifact_state, error, ANY),
};
TYPE(artifact_state);

static const struct wire_field artifact_read_fields[] = {
    PLAIN(artifact_read, sha256, DIGEST),
    PLAIN(artifact_read, offset, COUNT),
    PLAIN(artifact_read, length, CHUNK),
};
TYPE(artifact_read);

static const struct wire_field artifact_data_fields[] = {
    PLAIN(artifact_data, sha256, DIGEST),
    PLAIN(artifact_data, offset, COUNT),
    PLAIN(artifact_data, size, COUNT),
    PLAIN(artifact_data, data, CHUNK),
    PLAIN(artifact_data, error, ANY),
};
TYPE(artifact_data);

static const struct wire_field submit_model_fields[] = {
    PLAIN(submit_model, name, ANY),
    PLAIN(submit_model, path, ANY),
    PLAIN(submit_model, digest, DIGEST),
    PLAIN(submit_model, layers, ANY),
    PLAIN(submit_model, family, ANY),
    PLAIN(submit_model, tokenizer_digest, DIGEST),
    PLAIN(submit_model, plan_json, ANY),
};
TYPE(submit_model);

static const struct wire_field submit_file_fields[] = {
    PLAIN(submit_file, path, ANY),
    PLAIN(submit_file, sha256, DIGEST),
    PLAIN(submit_file, size, COUNT),
    PLAIN(submit_file, split, ANY),
};
TYPE(submit_file);

static const struct wire_field submit_fields[] = {
    PLAIN(submit, key, ANY),
    PLAIN(submit, name, ANY),
    PLAIN(submit, toml, ANY),
    PLAIN(submit, base_dir, ANY),
    LIST(submit, overrides, ANY),
    SUBS(submit, models, submit_model),
    SUBS(submit, files, submit_file),
    PLAIN(submit, extend, ANY),
    PLAIN(submit, limit_prompts, COUNT),
};
TYPE(submit);

static const struct wire_field submit_reply_fields[] = {
    PLAIN(submit_reply, sweep, ANY),
    PLAIN(submit_reply, name, ANY),
    PLAIN(submit_reply, outcome, ANY),
    PLAIN(submit_reply, cells, COUNT),
    LIST(submit_reply, notes, ANY),
};
TYPE(submit_reply);

EMPTY(list_sweeps);

static const struct wire_field sweep_row_fields[] = {
    PLAIN(sweep_row, sweep, ANY),
    PLAIN(sweep_row, name, ANY),
    PLAIN(sweep_row, state, ANY),
    PLAIN(sweep_row, cells, COUNT),
    PLAIN(sweep_row, stages, COUNT),
    PLAIN(sweep_row, stages_done, COUNT),
    PLAIN(sweep_row, stages_failed, COUNT),
    PLAIN(sweep_row, created_ms, COUNT),
    PLAIN(sweep_row, finished_ms, COUNT),
    PLAIN(sweep_row, reason, ANY),
};
TYPE(sweep_row);

static const struct wire_field sweep_list_fields[] = {
    SUBS(sweep_list, sweeps, sweep_row),
};
TYPE(sweep_list);

static const struct wire_field status_request_fields[] = {
    PLAIN(status_request, sweep, ANY),
    PLAIN(status_request, after_cell, ANY),
    PLAIN(status_request, limit, ANY),
    PLAIN(status_request, cell, ANY),
};
TYPE(status_request);

static const struct wire_field stage_row_fields[] = {
    PLAIN(stage_row, stage, ANY),
    PLAIN(stage_row, state, ANY),
    PLAIN(stage_row, reason, ANY),
    PLAIN(stage_row, done, COUNT),
    PLAIN(stage_row, total, COUNT),
    PLAIN(stage_row, failed, COUNT),
    PLAIN(stage_row, tokens_per_second, FINITE),
    PLAIN(stage_row, attempts, ANY),
    PLAIN(stage_row, worker, ANY),
    PLAIN(stage_row, job, ANY),
    PLAIN(stage_row, started_ms, COUNT),
    PLAIN(stage_row, finished_ms, COUNT),
    PLAIN(stage_row, summary_json, ANY),
    SUBS(stage_row, artifacts, attempt_artifact),
    LIST(stage_row, mates, ANY),
    PLAIN(stage_row, utilisation, FINITE),
    PLAIN(stage_row, category, ANY),
    PLAIN(stage_row, mend, ANY),
};
TYPE(stage_row);

static const struct wire_field choice_fields[] = {
    PLAIN(choice, count, COUNT),
    PLAIN(choice, measure, ANY),
    PLAIN(choice, layers, ANY),
    PLAIN(choice, share, FINITE),
    PLAIN(choice, probe, ANY),
};
TYPE(choice);

static const struct wire_field cell_row_fields[] = {
    PLAIN(cell_row, cell, ANY),
    PLAIN(cell_row, model, ANY),
    PLAIN(cell_row, strategy, ANY),
    PLAIN(cell_row, name, ANY),
    PLAIN(cell_row, layers, ANY),
    SUBS(cell_row, stages, stage_row),
    PLAIN(cell_row, settings_json, ANY),
    PLAIN(cell_row, in_grid, ANY),
    SUB(cell_row, choice, choice),
};
TYPE(cell_row);

static const struct wire_field status_reply_fields[] = {
    SUB(status_reply, sweep, sweep_row),
    SUBS(status_reply, cells, cell_row),
    PLAIN(status_reply, more, ANY),
    PLAIN(status_reply, judge_label, ANY),
    PLAIN(status_reply, now_ms, COUNT),
    PLAIN(status_reply, spent, FINITE),
    PLAIN(status_reply, reserved, FINITE),
    PLAIN(status_reply, budget, FINITE),
    PLAIN(status_reply, possibly_paid, COUNT),
    PLAIN(status_reply, workers, COUNT),
    PLAIN(status_reply, judges, COUNT),
    PLAIN(status_reply, toml, ANY),
    SUBS(status_reply, models, submit_model),
};
TYPE(status_reply);

static const struct wire_field answers_request_fields[] = {
    PLAIN(answers_request, sweep, ANY),
    PLAIN(answers_request, cell, ANY),
    PLAIN(answers_request, prompt, ANY),
    PLAIN(answers_request, after_answer, ANY),
    PLAIN(answers_request, limit, ANY),
    PLAIN(answers_request, with_text, ANY),
    PLAIN(answers_request, with_reasons, ANY),
};
TYPE(answers_request);

static const struct wire_field score_set_fields[] = {
    PLAIN(score_set, judge, ANY),
    PLAIN(score_set, sample, ANY),
    PLAIN(score_set, state, ANY),
    SUBS(score_set, scores, score),
    PLAIN(score_set, fault, ANY),
    PLAIN(score_set, flagged, ANY),
    PLAIN(score_set, identity, DIGEST),
};
TYPE(score_set);

static const struct wire_field answer_row_fields[] = {
    PLAIN(answer_row, answer, ANY),
    PLAIN(answer_row, cell, ANY),
    PLAIN(answer_row, prompt, COUNT),
    PLAIN(answer_row, sample, ANY),
    PLAIN(answer_row, prompt_text, ANY),
    PLAIN(answer_row, text, ANY),
    PLAIN(answer_row, finish, ANY),
    PLAIN(answer_row, tokens, COUNT),
    PLAIN(answer_row, prompt_sha256, DIGEST),
    SUBS(answer_row, scores, score_set),
};
TYPE(answer_row);

static const struct wire_field answers_reply_fields[] = {
    SUBS(answers_reply, answers, answer_row),
    PLAIN(answers_reply, more, ANY),
};
TYPE(answers_reply);

static const struct wire_field log_request_fields[] = {
    PLAIN(log_request, sweep, ANY),
    PLAIN(log_request, job, ANY),
    PLAIN(log_request, after_event, ANY),
    PLAIN(log_request, limit, ANY),
};
TYPE(log_request);

static const struct wire_field event_row_fields[] = {
    PLAIN(event_row, event, ANY),
    PLAIN(event_row, time_ms, COUNT),
    PLAIN(event_row, subject, ANY),
    PLAIN(event_row, from, ANY),
    PLAIN(event_row, to, ANY),
    PLAIN(event_row, reason, ANY),
    PLAIN(event_row, actor, ANY),
};
TYPE(event_row);

static const struct wire_field log_reply_fields[] = {
    SUBS(log_reply, events, event_row),
    PLAIN(log_reply, more, ANY),
};
TYPE(log_reply);

static const struct wire_field change_fields[] = {
    PLAIN(change, key, ANY),
    PLAIN(change, verb, ANY),
    PLAIN(change, sweep, ANY),
    PLAIN(change, cell, ANY),
    PLAIN(change, reason, ANY),
    PLAIN(change, failed_only, ANY),
    PLAIN(change, model, ANY),
    PLAIN(change, strategy, ANY),
    PLAIN(change, finish, ANY),
    LIST(change, settings, ANY),
    PLAIN(change, worker, ANY),
    PLAIN(change, deadline_ms, COUNT),
};
TYPE(change);

static const struct wire_field change_reply_fields[] = {
    PLAIN(change_reply, changed, COUNT),
    PLAIN(change_reply, text, ANY),
};
TYPE(change_reply);

EMPTY(workers_request);

static const struct wire_field worker_row_fields[] = {
    PLAIN(worker_row, name, ANY),
    PLAIN(worker_row, role, ANY),
    PLAIN(worker_row, state, ANY),
    PLAIN(worker_row, host, ANY),
    PLAIN(worker_row, backend, ANY),
    PLAIN(worker_row, slots, ANY),
    SUBS(worker_row, running, running),
    PLAIN(worker_row, last_seen_ms, COUNT),
    PLAIN(worker_row, version, ANY),
    PLAIN(worker_row, note, ANY),
    PLAIN(worker_row, clock_ms, ANY),
    PLAIN(worker_row, clock_known, ANY),
    SUBS(worker_row, devices, device),
    PLAIN(worker_row, key, ANY),
    SUBS(worker_row, models, held_model),
};
TYPE(worker_row);

static const struct wire_field workers_reply_fields[] = {
    SUBS(workers_reply, workers, worker_row),
};
TYPE(workers_reply);

static const struct wire_field metrics_request_fields[] = {
    PLAIN(metrics_request, sweep, ANY),
    PLAIN(metrics_request, cell, ANY),
    PLAIN(metrics_request, name, ANY),
    PLAIN(metrics_request, after, ANY),
    PLAIN(metrics_request, limit, ANY),
};
TYPE(metrics_request);

static const struct wire_field metric_row_fields[] = {
    PLAIN(metric_row, metric, ANY),
    PLAIN(metric_row, cell, ANY),
    PLAIN(metric_row, step, COUNT),
    PLAIN(metric_row, name, ANY),
    PLAIN(metric_row, value, ANY),
};
TYPE(metric_row);

static const struct wire_field metrics_reply_fields[] = {
    SUBS(metrics_reply, rows, metric_row),
    PLAIN(metrics_reply, more, ANY),
};
TYPE(metrics_reply);

static const struct wire_field norms_request_fields[] = {
    PLAIN(norms_request, sweep, ANY),
    PLAIN(norms_request, cell, ANY),
    PLAIN(norms_request, after, ANY),
    PLAIN(norms_request, limit, ANY),
};
TYPE(norms_request);

static const struct wire_field norm_row_fields[] = {
    PLAIN(norm_row, row, ANY),
    PLAIN(norm_row, probe, ANY),
    PLAIN(norm_row, model, ANY),
    SUB(norm_row, norm, attempt_norm),
};
TYPE(norm_row);

static const struct wire_field norms_reply_fields[] = {
    SUBS(norms_reply, rows, norm_row),
    PLAIN(norms_reply, more, ANY),
};
TYPE(norms_reply);

static const struct wire_field envelope_fields[] = {
    PLAIN(message, protocol, ANY),
    PLAIN(message, request_id, ANY),
    CHOICE(message, body, error, error),
    CHOICE(message, body, hello, hello),
    CHOICE(message, body, hello_reply, hello_reply),
    CHOICE(message, body, heartbeat, heartbeat),
    CHOICE(message, body, heartbeat_reply, heartbeat_reply),
    CHOICE(message, body, grant_request, grant_request),
    CHOICE(message, body, grant, grant),
    CHOICE(message, body, report, report),
    CHOICE(message, body, report_reply, report_reply),
    CHOICE(message, body, revoke, revoke),
    CHOICE(message, body, gang_state, gang_state),
    CHOICE(message, body, gang_order, gang_order),
    CHOICE(message, body, items_request, items_request),
    CHOICE(message, body, items_grant, items_grant),
    CHOICE(message, body, items_begin, items_begin),
    CHOICE(message, body, items_begin_reply, items_begin_reply),
    CHOICE(message, body, judge_replies, judge_replies),
    CHOICE(message, body, judge_outcomes, judge_outcomes),
    CHOICE(message, body, judge_ack, judge_ack),
    CHOICE(message, body, artifact_open, artifact_open),
    CHOICE(message, body, artifact_chunk, artifact_chunk),
    CHOICE(message, body, artifact_state, artifact_state),
    CHOICE(message, body, artifact_read, artifact_read),
    CHOICE(message, body, artifact_data, artifact_data),
    CHOICE(message, body, submit, submit),
    CHOICE(message, body, submit_reply, submit_reply),
    CHOICE(message, body, list_sweeps, list_sweeps),
    CHOICE(message, body, sweep_list, sweep_list),
    CHOICE(message, body, status_request, status_request),
    CHOICE(message, body, status_reply, status_reply),
    CHOICE(message, body, answers_request, answers_request),
    CHOICE(message, body, answers_reply, answers_reply),
    CHOICE(message, body, log_request, log_request),
    CHOICE(message, body, log_reply, log_reply),
    CHOICE(message, body, change, change),
    CHOICE(message, body, change_reply, change_reply),
    CHOICE(message, body, workers_request, workers_request),
    CHOICE(message, body, workers_reply, workers_reply),
    CHOICE(message, body, metrics_request, metrics_request),
    CHOICE(message, body, metrics_reply, metrics_reply),
    CHOICE(message, body, norms_request, norms_request),
    CHOICE(message, body, norms_reply, norms_reply),
    CHOICE(message, body, backup, backup),
    CHOICE(message, body, backup_reply, backup_reply),
    CHOICE(message, body, gc, gc),
    CHOICE(message, body, gc_reply, gc_reply),
    CHOICE(message, body, health_request, health_request),
    CHOICE(message, body, health_reply, health_reply),
};
const struct wire_type wire_message_type = {
    &ha__envelope__descriptor, sizeof(struct ha_wire_message),
    offsetof(struct ha_wire_message, kind), envelope_fields, COUNT_OF(envelope_fields)};
/* clang-format on */
