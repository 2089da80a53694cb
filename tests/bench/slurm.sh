#!/bin/sh
# s for 1,000 jobs of /bin/true from the submit to the last end known, beside Slurm on this machine
#
# JOBS, SLOTS (default 1,000 and 64), RUNS (5), RUNS_DEFAULTS (as many).  A slot of Slurm's takes its
# next job about a second after the last one has ended (tuned; near three at its defaults), whatever
# the processor does: few slots measure that wait alone, so there are many.  Needs root, slurmctld,
# slurmd and munged; they run in a folder of their own with made-up settings and are gone at the end.
# Slurm gets one job array, once at its defaults, once tuned by its high-throughput guide; without
# accounting.  Of the guide, "defer" is left out: with it the scheduler ran but once a second, and
# 100 jobs took 14 s, not 10.  We get one grid of as many cells, and a light worker that starts
# /bin/true for each; the output goes to a file of each job on both sides.
#
# What "known" means.  Ours: the end of each job is in the database (synchronous=FULL) before it
# counts.  Slurm's: squeue shows no job any more; its state file follows up to 5 s later (printed as
# "saved"), and a crash before that forgets ends.  The ratio takes squeue's time.
missing=
for program in slurmctld slurmd munged mungekey sbatch squeue scontrol; do
    command -v $program >/dev/null 2>&1 || missing="$missing $program"
done
if [ -n "$missing" ]; then
    echo "slurm: not here:$missing (apt-get install slurmctld slurmd slurm-client munge)" >&2
    exit 3
fi
if [ "$(id -u)" != 0 ]; then
    echo "slurm: needs root, as slurmd does" >&2
    exit 3
fi
. tests/bench/control/lib.sh
jobs=${JOBS:-1000}
slots=${SLOTS:-64}
runs=${RUNS:-5}
runs_defaults=${RUNS_DEFAULTS:-$runs}
s=$work/slurm
host=$(hostname -s)
SLURM_CONF=$s/slurm.conf
export SLURM_CONF

end_of() { # pid file: ends the process that wrote it
    [ -s "$1" ] || return 0
    pid=$(cat "$1")
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.5
    done
    kill -KILL "$pid" 2>/dev/null || true
}

stop_slurm() {
    end_of "$s/slurmd.pid"
    end_of "$s/slurmctld.pid"
}

cleanup_slurm() {
    stop_slurm
    end_of "$s/munged.pid"
    cleanup
}
trap cleanup_slurm EXIT

settings() { # tuned | defaults
    cat <<CONF
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=17817
SlurmdPort=17818
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$s/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$s/state
SlurmdSpoolDir=$s/spool
SlurmctldPidFile=$s/slurmctld.pid
SlurmdPidFile=$s/slurmd.pid
SlurmctldLogFile=$s/slurmctld.log
SlurmdLogFile=$s/slurmd.log
ProctrackType=proctrack/linuxproc
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$slots State=UNKNOWN
PartitionName=bench Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
    [ "$1" = tuned ] || return 0
    cat <<CONF
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,default_queue_depth=10000,sched_interval=1
PriorityType=priority/basic
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
TaskPlugin=task/none
MaxJobCount=100000
MinJobAge=10
MessageTimeout=60
SlurmctldDebug=error
SlurmdDebug=error
SlurmctldParameters=idle_on_node_suspend
CONF
}

start_slurm() { # tuned | defaults
    rm -rf "$s/state" "$s/spool" "$s/out"
    mkdir -p "$s/state" "$s/spool" "$s/out"
    settings "$1" >"$SLURM_CONF"
    slurmctld -f "$SLURM_CONF" -c
    slurmd -f "$SLURM_CONF" -N "$host"
    for _ in $(seq 100); do
        scontrol show node "$host" 2>/dev/null | grep -q 'State=IDLE ' && return
        sleep 0.2
    done
    tail -n 5 "$s"/slurmctld.log "$s"/slurmd.log >&2
    echo "slurm: its node does not come up" >&2
    exit 1
}

# One array; prints the seconds until squeue is empty and until the state is saved.
array() {
    rm -rf "$s/out"
    mkdir -p "$s/out"
    begin=$(date +%s%N)
    sbatch --array=0-$((jobs - 1)) --ntasks=1 --output="$s/out/%a.log" --parsable \
        "$s/job.sh" >/dev/null
    while [ -n "$(squeue --noheader --format=%i --states=PENDING,RUNNING,COMPLETING)" ]; do
        sleep 0.25 # more often would take its processor time
    done
    end=$(date +%s%N)
    while [ "$(date -r "$s/state/job_state" +%s%N)" -lt "$end" ] &&
        [ $(($(date +%s%N) - end)) -lt 15000000000 ]; do
        sleep 0.05
    done
    saved=$(date +%s%N)
    done_files=$(find "$s/out" -name '*.log' | wc -l)
    [ "$done_files" -eq "$jobs" ] ||
        { echo "slurm: $done_files of $jobs jobs left an output" >&2; exit 1; }
    awk -v a=$((end - begin)) -v b=$((saved - begin)) 'BEGIN { printf "%.3f %.3f\n", a / 1e9, b / 1e9 }'
}

ours() {
    fresh
    rm -rf "$work/out"
    mkdir "$work/out"
    ask together --workers 1 --slots "$slots" --spawn "$work/out" --cells "$jobs" |
        sed -n 's/^together \([0-9.]*\) s/\1/p'
    stop
}

median() { # column of the file
    awk -v c="$1" '{ print $c }' "$2" | sort -n | sed -n "$((($(wc -l <"$2") + 1) / 2))p"
}

mkdir -p "$s"
chmod 755 "$s" "$work"
mungekey --create --keyfile="$s/munge.key" >/dev/null
munged --force --key-file="$s/munge.key" --socket="$s/munge.socket" --pid-file="$s/munged.pid" \
    --log-file="$s/munged.log" --seed-file="$s/munged.seed"
printf '#!/bin/sh\nexec /bin/true\n' >"$s/job.sh"
disk
echo "$jobs jobs, $slots slots, $(slurmctld -V), $runs runs, medians"
for how in defaults tuned; do
    start_slurm $how
    count=$runs
    [ $how = tuned ] || count=$runs_defaults
    for _ in $(seq "$count"); do array; done | tee "$work/$how" | sed "s/^/$how /" >&2
    [ "$(wc -l <"$work/$how")" -eq "$count" ] || exit 1
    stop_slurm
done
for _ in $(seq "$runs"); do ours; done | tee "$work/ours" | sed 's/^/ours /' >&2
printf '%-24s %10s %10s %10s\n' '' seconds jobs/s saved
for how in defaults tuned ours; do
    seconds=$(median 1 "$work/$how")
    saved=$seconds
    [ $how = ours ] || saved=$(median 2 "$work/$how")
    printf '%-24s %10s %10.0f %10s\n' "$how" "$seconds" \
        "$(awk -v s="$seconds" -v n="$jobs" 'BEGIN { print n / s }')" "$saved"
done
disk
awk -v a="$(median 1 "$work/tuned")" -v b="$(median 1 "$work/ours")" \
    'BEGIN { printf "slurm ratio %.2f\n", a / b }'
