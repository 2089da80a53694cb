#!/bin/sh
# The whole grid on real hh-rlhf, at most 96 pairs and 16 prompts.
. "$(dirname "$0")/lib.sh"

if [ -z "${HA_TEST_DATA:-}" ]; then
    echo "skip $HA_TEST: HA_TEST_DATA is not set"
    exit 0
fi
start_evaluator
start_coordinator || not_ok "the coordinator starts: $(tail -n 1 "$HA_TMP/coordinator.log")"
MODELS="qwen3-demo llama-3.1-demo" STRATEGIES='"base", "local", "global"' TRAIN=96 EVAL=16 TOKENS=24 \
    TRAIN_FILE=$HA_TEST_DATA/hh-rlhf/helpful-base/test.jsonl.gz \
    EVAL_FILE=$HA_TEST_DATA/hh-rlhf/harmless-base/test.jsonl.gz write_grid grid.toml
check "the grid is submitted" hactl_here submit grid.toml
start_worker w1
start_worker w2
start_judge j1
start_judge j2
check "the grid ends without gaps" hactl_here wait grid --timeout 400
stop_coordinator
check_complete 6 16
