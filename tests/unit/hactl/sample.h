/* sample.h - a status of two cells, for the tests of its views */
#ifndef HA_TESTS_UNIT_HACTL_SAMPLE_H
#define HA_TESTS_UNIT_HACTL_SAMPLE_H

#include "coordinator/hactl/fetch.h"

static struct ha_wire_stage_row sample_base[] = {
    {.stage = "generate",
     .state = "done",
     .reason = "",
     .category = "",
     .mend = "",
     .done = 60,
     .total = 60,
     .worker = "w1",
     .started_ms = 1000,
     .finished_ms = 7000,
     .summary_json = "{\"tokens\":12}"},
    {.stage = "judge:j",
     .state = "running",
     .reason = "",
     .category = "",
     .mend = "",
     .done = 30,
     .total = 60,
     .worker = "",
     .started_ms = 7000,
     .summary_json = ""},
};

static struct ha_wire_stage_row sample_mid[] = {
    {.stage = "train",
     .state = "failed",
     .reason = "the loss is not finite",
     .category = "",
     .mend = "",
     .total = 10,
     .worker = "",
     .summary_json = ""},
    {.stage = "generate",
     .state = "cancelled",
     .reason = "training failed",
     .category = "",
     .mend = "",
     .total = 60,
     .worker = "",
     .summary_json = ""},
    {.stage = "judge:j",
     .state = "waiting",
     .reason = "waits for answers",
     .category = "",
     .mend = "",
     .total = 60,
     .worker = "",
     .summary_json = ""},
};

static struct ha_wire_cell_row sample_cells[] = {
    {.cell = 1,
     .model = "m",
     .strategy = "base",
     .name = "m/base",
     .layers = "",
     .stages = sample_base,
     .n_stages = 2,
     .settings_json = "",
     .in_grid = true},
    {.cell = 2,
     .model = "m",
     .strategy = "mid",
     .name = "m/mid",
     .layers = "2-3",
     .stages = sample_mid,
     .n_stages = 3,
     .settings_json = "",
     .in_grid = true},
};

static const struct ha_wire_cell_row *sample_rows[] = {&sample_cells[0], &sample_cells[1]};

static const struct ha_wire_status_reply sample_head = {
    .sweep = {.sweep = 1, .name = "s", .state = "running", .reason = ""},
    .judge_label = "Not a language model.",
    .now_ms = 13000,
    .workers = 1,
    .judges = 1,
    .toml = ""};

static const struct ha_status sample_status = {
    .head = &sample_head, .cells = sample_rows, .n_cells = 2};

#endif
