#!/bin/sh
# Evaluators that misbehave: a grid whose evaluator fails in fourteen ways in turn
# still ends with every score; one that is not there, or does not take the key,
# is named in the status; keys stand in no log.
. "$(dirname "$0")/lib.sh"

start_evaluator --misbehave fenced:3 --misbehave cut-off:5 --misbehave missing:7 \
    --misbehave think:8 --misbehave 500:11 --misbehave short-body:13 --misbehave 429-fraction:17 \
    --misbehave two-arrays:19 --misbehave empty:23 --misbehave oversized:29 --misbehave reset:31 \
    --misbehave error-200:37 --misbehave html:41 --misbehave bad-bytes:43
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"
write_grid grid.toml
printf 'max_reasks = 16\nmax_attempts = 20\n' >>grid.toml # chance must not decide this test
check "the grid is submitted" hactl_here submit grid.toml
start_worker w1
start_judge j1
start_judge j2
check "the grid ends without gaps" hactl_here wait grid --timeout 300

# The same answers once more, by a judge whose key the evaluator does not take.
cat >>grid.toml <<'TOML'

[[judge]]
name = "refused"
provider = "openai"
base_url = "http://127.0.0.1:EVALUATOR/v1"
model = "gpt"
api_key_env = "HA_TEST_KEY"
TOML
background refusing ha-evaluator --port 0 --port-file "$HA_TMP/refusing.port" --misbehave 401 \
    --record "$HA_TMP/refused.txt"
until_true 10 test -s "$HA_TMP/refusing.port"
sed -i "s/EVALUATOR/$(cat "$HA_TMP/refusing.port")/" grid.toml
HA_TEST_KEY=sk-integration-secret
export HA_TEST_KEY
start_judge j3
check "a judge is added" hactl_here submit grid.toml
check "the refused key is named in a log" until_true 60 grep -q 'refuses the key' "$HA_TMP/j3.log"
sleep 3
[ "$(wc -l <refused.txt)" -le 12 ] && ok "few calls probe whether it is mended" ||
    not_ok "calls of a refused key: $(wc -l <refused.txt)"
check "the key stands in no log and no database" sh -c \
    "! grep -r -a -q sk-integration-secret '$HA_TMP' --include=*.log --include=*.db* --include=*.spool"
hactl_here cancel grid >/dev/null
stop_coordinator
check "calls whose outcome is unknown are told apart" test "$(query \
    "SELECT count(*) FROM judge_call WHERE state = 'unknown'")" -ge 1
equal "every answer is scored by the first" \
    "$(query "SELECT count(*) FROM item i JOIN judge j ON j.id = i.judge WHERE j.name = 'text-statistics' AND i.state = 'scored'")" 32
equal "with 16 scores each" \
    "$(query 'SELECT count(*) FROM (SELECT item FROM score GROUP BY item HAVING count(*) = 16)')" 32
equal "and what was mended is kept" \
    "$(query "SELECT count(DISTINCT repairs) > 2 FROM item WHERE state = 'scored'")" 1
