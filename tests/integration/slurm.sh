#!/bin/sh
# deploy/slurm/run.sbatch: the warning signal stops the grid with checkpoints and
# puts the job back into the queue; started again, the grid goes on to its end.
# scontrol is a stand-in that writes down what it was asked.
. "$(dirname "$0")/lib.sh"

mkdir bin
printf '#!/bin/sh\necho "$@" >>"%s/scontrol.txt"\n' "$HA_TMP" >bin/scontrol
chmod 755 bin/scontrol
PATH=$HA_TMP/bin:$PATH
SLURM_JOB_ID=42
export SLURM_JOB_ID
sed "s#\"models/#\"$HA_ROOT/deploy/demo/models/#; s#\"data/#\"$HA_ROOT/deploy/demo/data/#; s/^train_samples.*/train_samples = 96/; s/^eval_samples.*/eval_samples = 8/" \
    "$HA_ROOT/deploy/demo/grid.toml" >grid.toml

background batch bash "$HA_ROOT/deploy/slurm/run.sbatch" grid.toml
batch=$HA_PID
check "the grid runs in the batch job" until_true 60 sh -c \
    'hactl status --dir runs/demo --json | python3 -c "import json, sys; sys.exit(json.load(sys.stdin)[\"answers\"] < 8)"'
kill -TERM "$batch"
wait "$batch"
equal "the warning signal ends it well" $? 0
equal "and it is put back into the queue" "$(cat scontrol.txt 2>/dev/null)" "requeue 42"
check "started again it goes on to the end" bash "$HA_ROOT/deploy/slurm/run.sbatch" grid.toml
equal "with every score" "$(sqlite3 runs/demo/coordinator.db 'SELECT count(*) FROM score')" $((20 * 8 * 16))
equal "and is not put back again" "$(wc -l <scontrol.txt | tr -d ' ')" 1
