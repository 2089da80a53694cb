/* fuse_preview.h - how the plan would form jobs of a grid, for ha-coordinator --fuse
 *
 * FILE is JSON:
 *
 *   {"devices": [1, 2, ...], "memory_bytes": of a device,
 *    "models": [{"layers", "plan": what ha-attempt plan --json prints, a text, or ""}],
 *    "groups": [{"model": index, "fuse": "auto", "cells": [{"name", "lowest", "layers", "rank"}]}]}
 *
 * What is printed: {"groups": [{"choices": [{"devices", "finish", "jobs": [[names]]}]}]},
 * one choice for each number of devices; finish as in core/fuse.h. */
#ifndef HA_COORDINATOR_SERVER_FUSE_PREVIEW_H
#define HA_COORDINATOR_SERVER_FUSE_PREVIEW_H

struct ha_error;

int ha_fuse_preview(const char *file, struct ha_error *err);

#endif
