#!/bin/sh
# A whole grid: two workers and two judge workers over tcp loopback with keys off.
. "$(dirname "$0")/lib.sh"

start_evaluator
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"
write_grid grid.toml
check "the grid is submitted" hactl_here submit grid.toml --insecure-loopback
start_worker w1
start_worker w2
start_judge j1
start_judge j2
check "the grid ends without gaps" hactl_here wait grid --timeout 300
check "status lists both workers" sh -c \
    "hactl workers --connect $CONTROL --insecure-loopback | grep -c -E '^w[12] .*alive' | grep -qx 2"
check "results are JSON" sh -c \
    "hactl results grid --json --connect $CONTROL --insecure-loopback | python3 -m json.tool"
hactl_here results grid --csv >results.csv
equal "a row per group and dimension" "$(wc -l <results.csv | tr -d ' ')" $(((4 + 2) * 16 + 1))
hactl_here show qwen2.5-demo/mid --prompt 1 >show.txt
check "show has the model's cells side by side" grep -q '== qwen2.5-demo/base' show.txt
check "the report is written" hactl_here report grid --out report
check "with the throughput and the utilisation of every train and generate stage" python3 - <<'PYTHON'
import csv
for name, cells in (("times", 2), ("generation-times", 4)):
    rows = list(csv.DictReader(open(f"report/{name}.csv")))
    assert len(rows) == cells, rows
    for row in rows:
        for key in ("tokens/s", "GFLOP/s", "Peak GFLOP/s", "Utilisation %", "Saved FLOPs %"):
            assert float(row[key]) == float(row[key]), row
        assert float(row["Utilisation %"]) > 0 and float(row["Peak GFLOP/s"]) > 0, row
PYTHON
check "every table says that the judge is no language model" sh -c \
    "grep -q 'not a language model' report/report.md"
check "the adapter is exported" hactl_here export llama-2-demo/mid --out adapter
check "as PEFT files" test -s adapter/adapter_config.json -a -s adapter/adapter_model.safetensors
check "submitting again resumes and changes nothing" sh -c \
    "hactl submit grid.toml --connect $CONTROL --insecure-loopback | grep -q resumed"
sed 's/^name = "grid"/name = "again"/' grid.toml >again.toml
check "another sweep reuses every stage" sh -c \
    "hactl submit again.toml --wait --connect $CONTROL --insecure-loopback"
equal "nothing was computed twice" \
    "$(hactl_here status again --json | python3 -c '
import json, sys
print(sorted({s["state"] for c in json.load(sys.stdin)["cells"] for s in c["stages"]}))')" "['reused']"
sed 's/^\[train\]/[train]\nbeta = 0.5/' grid.toml >changed.toml
check "a changed setting of existing cells is refused by its name" sh -c \
    "hactl submit changed.toml --connect $CONTROL --insecure-loopback 2>&1 | grep -q 'train.beta'"
stop_coordinator
check_complete 4 8
equal "the evaluator was asked once per answer" "$(wc -l <calls.txt | tr -d ' ')" 32
