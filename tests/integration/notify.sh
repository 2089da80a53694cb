#!/bin/sh
# What the daemons tell a service manager (sd_notify): ready when they serve, stopping when they leave.
. "$(dirname "$0")/lib.sh"

cat >listen.py <<'PYTHON'
import socket, sys
name = sys.argv[1]
end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
end.bind(name + ".sock")
with open(name + ".told", "wb", 0) as told:
    while True:
        told.write(end.recv(4096) + b"\n")
PYTHON

# listen NAME: what comes to the socket NAME.sock goes to NAME.told.
listen() {
    background "$1-manager" python3 listen.py "$1"
    until_true 10 test -e "$1.told"
}

leaves() { # NAME, process: it tells both, in this order, and ends well
    check "$1 is ready" until_true 20 grep -qx READY=1 "$1.told"
    equal "$1 tells no more before it leaves" "$(wc -l <"$1.told")" 1
    kill -TERM "$2"
    wait "$2"
    equal "$1 ends as it should" $? 0
    check "$1 told that it leaves" until_true 5 grep -qx STOPPING=1 "$1.told"
}

listen coordinator
NOTIFY_SOCKET=$HA_TMP/coordinator.sock start_coordinator
listen worker
# There is no coordinator at this address: a worker is ready all the same.
background worker env NOTIFY_SOCKET="$HA_TMP/worker.sock" ha-worker --connect ipc://nobody --name w \
    --work-dir "$HA_TMP/worker" --backend cpu --set cgroup=off
WORKER=$HA_PID
listen judge
background judge env NOTIFY_SOCKET="$HA_TMP/judge.sock" ha-judge-worker --connect ipc://nobody --name j \
    --spool "$HA_TMP/judge"
JUDGE=$HA_PID
leaves worker "$WORKER"
leaves judge "$JUDGE"
leaves coordinator "$COORDINATOR"
