#!/bin/sh
# A probe before training: strategies with layers = "auto:K" wait for it and train
# the layers it found, in every model; worker and coordinator are killed in the middle
# of it; a later sweep has its norms without a second probe.
. "$(dirname "$0")/lib.sh"

start_evaluator
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"

# write_probe FILE: write_grid with one named and one chosen strategy.
write_probe() {
    TRAIN=400 EVAL=4 write_grid "$1"
    cat >>"$1" <<GRID
[probe]
pairs = 400
[[strategy]]
name = "top"
layers = "auto:2"
[schedule]
fuse = "never"
GRID
}

state_of() { # cell, stage, state
    hactl_here status grid --json | python3 -c "
import json, sys
cells = json.load(sys.stdin)['cells']
sys.exit(not any(s['stage'] == '$2' and s['state'] == '$3' for c in cells if c['name'] == '$1' for s in c['stages']))"
}

write_probe grid.toml
check "a dry run tells the probes" sh -c \
    'hactl submit --dry-run grid.toml | grep -qx "2 probes of 400 pairs, each a job by itself"'
check "the grid is submitted" hactl_here submit grid.toml
check "its cells are made" until_true 20 state_of qwen2.5-demo/top train waiting
hactl_here why qwen2.5-demo/top --sweep grid >why.txt 2>&1
check "auto:2 waits for it" state_of qwen2.5-demo/top train waiting
check "and says so" grep -q 'qwen2.5-demo/top train.*waiting for the probe' why.txt
check "named layers do not" state_of qwen2.5-demo/mid train ready

start_worker w1
worker=$HA_PID
begun() { # so many attempts of probes
    [ "$(grep -c '(probe of sweep grid) begins' w1.log)" -ge "$1" ]
}
check "a probe runs" until_true 60 begun 1
kill -KILL "$worker"
wait "$worker" 2>/dev/null
start_worker w1
worker=$HA_PID
check "it runs again after the worker was killed" until_true 60 begun 2
kill -KILL "$COORDINATOR"
wait "$COORDINATOR" 2>/dev/null
start_coordinator
check "the worker was left running when the coordinator was killed" kill -0 "$worker"
start_judge j1
check "the grid ends without gaps" hactl_here wait grid --timeout 300

hactl_here probe grid --json >norms.json
hactl_here status grid --json >status.json
# The choice, made anew from the norms that are told.
equal "each model trained the two neighbours with the largest share" "$(python3 - <<'PYTHON'
import json
cells = {c["name"]: c for c in json.load(open("status.json"))["cells"]}
told = json.load(open("norms.json"))
good = []
for choice in told["choices"]:
    model = choice["cell"].split("/")[0]
    norm = [n["norm"] for n in told["norms"]
            if n["probe"] == model and not n["block"] and n["module"] == "all"]
    sums = [norm[i] + norm[i + 1] for i in range(len(norm) - 1)]
    first = sums.index(max(sums))
    cell = cells[choice["cell"]]
    good.append(choice["layers"] == f"{first}-{first + 1}" == cell["layers"] == cell["choice"]["layers"]
                and abs(choice["share"] - max(sums) / sum(norm)) < 1e-12)
print(good)
PYTHON
)" "[True, True]"
for model in qwen2.5-demo llama-2-demo; do
    hactl_here export "$model/top" --sweep grid --out "adapter-$model" >/dev/null
    equal "the adapter of $model/top is of those layers" \
        "$(python3 -c "import json; print(json.load(open('adapter-$model/adapter_config.json'))['layers_to_transform'])")" \
        "$(python3 -c "
import json
a, b = {c['name']: c for c in json.load(open('status.json'))['cells']}['$model/top']['layers'].split('-')
print(list(range(int(a), int(b) + 1)))")"
done
hactl_here show qwen2.5-demo/top --sweep grid >show.txt 2>&1
check "show tells what was chosen" grep -q 'qwen2.5-demo/top *auto:2 *norm *[0-9]-[0-9]' show.txt
hactl_here report grid --out report >/dev/null
check "the report has a row for each layer of each model" \
    [ "$(wc -l <report/probe-layers.csv)" -eq "$(python3 -c "
import json
print(1 + len([n for n in json.load(open('norms.json'))['norms'] if not n['block'] and n['module'] == 'all']))")" ]
check "and for local, mid, global and full" [ "$(wc -l <report/probe-blocks.csv)" -eq 9 ]

write_probe more.toml
sed -i 's/^name = "grid"/name = "more"/; s/auto:2/auto:3/; s/"mid"/"local"/' more.toml
check "another grid is submitted" hactl_here submit more.toml
check "its layers are chosen at once" sh -c \
    "hactl status more --json --connect $CONTROL --insecure-loopback | python3 -c 'import json, sys; sys.exit(any(c[\"strategy\"] == \"top\" and not c[\"choice\"][\"layers\"] for c in json.load(sys.stdin)[\"cells\"]))'"
check "it ends without gaps" hactl_here wait more --timeout 300
stop_coordinator
equal "by the norms of the first" \
    "$(query "SELECT count(*), count(DISTINCT result) FROM stage WHERE kind = 'probe'")" "8|2"
equal "with one probe job for each model" \
    "$(query "SELECT count(*), count(DISTINCT model_digest) FROM job WHERE kind = 'probe'")" "2|2"
equal "attempts of the first were begun anew" \
    "$(query "SELECT max(attempts) >= 2 FROM job WHERE kind = 'probe'")" 1
