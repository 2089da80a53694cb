#!/bin/sh
# The demo grid as the quickstart runs it: 4 models x 5 strategies, embedded.  Its
# strategies differ: held-out reward accuracy above 0.6 in every trained cell, and
# at least half of each one's answers differ from base's.  Interrupted, it resumes.
. "$(dirname "$0")/lib.sh"

grid=$HA_ROOT/deploy/demo/grid.toml
background first hactl run "$grid"
first=$HA_PID
check "a second terminal sees it" until_true 60 hactl status --dir runs/demo --summary
check "and the first answers" until_true 120 sh -c \
    'hactl status --dir runs/demo --json | python3 -c "import json, sys; sys.exit(json.load(sys.stdin)[\"answers\"] < 100)"'
hactl run "$grid" >second.txt 2>&1
check "the same grid twice at a time is refused" grep -q "already being run" second.txt
kill -INT "$first"
wait "$first"
equal "Ctrl-C ends it" $? 1
nothing_left() { # the programs call themselves ha-...
    ! pgrep -f "^ha-.*$HA_TMP"
}
check "and leaves no process" until_true 10 nothing_left

started=$(date +%s)
hactl run "$grid" >run.txt 2>&1
equal "started again it ends" $? 0
echo "# the rest took $(($(date +%s) - started)) s" >&2
started=$(date +%s)
check "a third time it finishes from what is there" hactl run "$grid"
[ $(($(date +%s) - started)) -le 20 ] && ok "at once" || not_ok "after $(($(date +%s) - started)) s"

equal "1,200 answers x 16 scores are in the database" \
    "$(sqlite3 runs/demo/coordinator.db 'SELECT count(*) FROM score')" 19200
equal "each set is complete" \
    "$(sqlite3 runs/demo/coordinator.db 'SELECT count(*) FROM (SELECT item FROM score GROUP BY item HAVING count(*) = 16)')" 1200
hactl status --dir runs/demo --json >status.json
equal "20 cells, all trained ones prefer the chosen answers" "$(python3 - <<'PYTHON'
import json
cells = json.load(open("status.json"))["cells"]
accuracies = {c["name"]: s["summary"]["eval_rewards/accuracies"]
              for c in cells for s in c["stages"] if s["stage"] == "train"}
print(len(cells), len(accuracies), [name for name, a in accuracies.items() if a <= 0.6])
PYTHON
)" "20 16 []"
equal "and answer differently from base" "$(sqlite3 -separator ' ' runs/demo/coordinator.db "
    SELECT count(*), min(differ) >= 30 FROM (
        SELECT t.result, sum(t.text <> b.text) AS differ FROM answer t
        JOIN cell tc ON tc.id = t.cell
        JOIN cell bc ON bc.model = tc.model AND bc.strategy = 'base'
        JOIN answer b ON b.cell = bc.id AND b.prompt = t.prompt
        WHERE tc.strategy <> 'base' GROUP BY t.result)")" "16 1"
check "the report has the strategies' table" grep -q 'Overall scores by strategy' runs/demo/report/report.md
check "TensorBoard files are there" sh -c 'ls runs/demo/tensorboard/*/events.out.tfevents.* | wc -l | grep -qx "[0-9][0-9]*"'
sed "s/^use = .*/use = [\"base\", \"local\", \"mid\", \"global\"]/; s#\"models/#\"$HA_ROOT/deploy/demo/models/#; s#\"data/#\"$HA_ROOT/deploy/demo/data/#" \
    "$grid" >fewer.toml
check "an edited grid keeps equal cells and stops missing ones" sh -c 'hactl run fewer.toml --name demo'
check "which stay, as no longer in the grid" sh -c \
    'hactl status --dir runs/demo --json | python3 -c "import json, sys; sys.exit(sum(not c[\"in_grid\"] for c in json.load(sys.stdin)[\"cells\"]) != 4)"'
