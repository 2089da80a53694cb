/* results_json.h - the statistics of an experiment as JSON */
#ifndef HA_COORDINATOR_HACTL_RESULTS_JSON_H
#define HA_COORDINATOR_HACTL_RESULTS_JSON_H

struct ha_experiment;
struct ha_json;

/* {"label", "cells": [{"name", "model", "strategy", "layers", "expected",
 * "dimensions": {NAME: {"mean", "std", "median", "count"}}}],
 * "strategies": [...]}; statistics that do not exist are null.  NULL when memory
 * is short. */
struct ha_json *ha_results_json(const struct ha_experiment *experiment);

#endif
