#!/bin/sh
# tokens a second of DPO training on the CPU, demo models, all layers trained
#
# Computed tokens of the optimizer steps (packed, the prompt of a pair once), whose time has the
# base model's pass for the references in it; evaluation apart.  HA_THREADS: default one per core.
set -eu
ninja -C "$HA_BUILD" ha-attempt >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '%-16s %10s\n' model tokens/s
for model in deploy/demo/models/*/; do
    "$HA_BUILD/ha-attempt" train --model "$model" --strategy full --backend cpu \
        --data deploy/demo/data/train.jsonl --out "$work/adapter" --threads "${HA_THREADS:-0}" \
        --set data.train_samples=144 --set train.learning_rate=1e-3 2>"$work/log" ||
        { tail -n 1 "$work/log" >&2; exit 1; }
    awk -v model="$(basename "$model")" '/ phase / { step = / phase step/ }
        step && /tokens\/s/ { rate = $(NF - 1) } END { printf "%-16s %10.0f\n", model, rate }' "$work/log"
done | tee "$work/table"
awk '{ sum += 1 / $2; n++ } END { printf "train-cpu value %.0f tokens/s\n", n / sum }' "$work/table"
