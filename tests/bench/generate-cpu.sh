#!/bin/sh
# tokens a second of greedy generation on the CPU, demo models, 64 sequences at once
#
# New tokens over the time from the first prompt to the last answer.  HA_THREADS: default one per
# core.
set -eu
ninja -C "$HA_BUILD" ha-attempt >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '%-16s %10s\n' model tokens/s
for model in deploy/demo/models/*/; do
    "$HA_BUILD/ha-attempt" generate --model "$model" --backend cpu --threads "${HA_THREADS:-0}" \
        --prompts deploy/demo/data/eval.jsonl --out "$work/answers" \
        --set generate.max_new_tokens=128 2>"$work/log" || { tail -n 1 "$work/log" >&2; exit 1; }
    printf '%-16s %10.0f\n' "$(basename "$model")" \
        "$(sed -n 's/.*"tokens_per_second":\([0-9.]*\).*/\1/p' "$work/log")"
done | tee "$work/table"
awk '{ sum += 1 / $2; n++ } END { printf "generate-cpu value %.0f tokens/s\n", n / sum }' "$work/table"
