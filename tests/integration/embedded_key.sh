#!/bin/sh
# hactl run with an evaluator's key in its environment: the judge worker alone has it, and no
# program that has it leaves a core file.
. "$(dirname "$0")/lib.sh"

ulimit -c unlimited 2>/dev/null
sleep 60 &
kill -ABRT $! && wait $! 2>/dev/null
set -- core*
if [ -f "$1" ]; then
    CORES=yes
    rm -f core*
else
    CORES=
    echo "skip $HA_TEST: core files: none are written into the folder of a process here"
fi

start_evaluator
MODELS=qwen2.5-demo TRAIN=2000 EVAL=4 TOKENS=4 write_grid grid.toml
echo 'api_key_env = "HA_TEST_KEY"' >>grid.toml
HA_TEST_KEY=ha-embedded-secret-$$-$(date +%s)
export HA_TEST_KEY
printf %s "$HA_TEST_KEY" >secret
background run hactl run grid.toml --slots 1 --threads 1 --backend cpu
RUN=$HA_PID
unset HA_TEST_KEY
child() { # parent, start of its command line
    pgrep -P "$1" -f "^$2"
}
attempt() { child "$(child "$RUN" ha-worker)" ha-attempt; }
until_true 20 attempt
has() { # process
    [ -r "/proc/$1/environ" ] || { echo hidden && return; }
    tr '\0' '\n' <"/proc/$1/environ" | grep -q -a -F -f secret && echo yes || echo no
}
# What root may look into, its user may not when a program guards itself.
equal "hactl was given it" "$(has "$RUN")" "$([ "$(id -u)" -eq 0 ] && echo yes || echo hidden)"
for name in ha-coordinator ha-worker; do
    equal "$name has not got the key" "$(has "$(child "$RUN" $name)")" no
done
ATTEMPT=$(attempt)
equal "nor has an attempt" "$(has "$ATTEMPT")" no
check "answers are judged with it" until_true 30 test -s calls.txt
# They die with a wish for a core file; the coordinator's shows that one would be seen.
kill -ABRT "$ATTEMPT"
kill -ABRT "$(child "$RUN" ha-coordinator)"
[ -n "$CORES" ] && check "the coordinator leaves a core file" until_true 10 test -s core
kill -ABRT "$(child "$RUN" ha-judge-worker)"
kill -ABRT "$RUN"
wait "$RUN" 2>/dev/null
nobody() { ! pgrep -f "^ha-[a-jw].*$HA_TMP/runs"; }
until_true 20 nobody
equal "no file, log, database or core has the key" \
    "$(grep -r -l -a -F -f secret --exclude=secret . | tr '\n' ' ')" ""
