#!/bin/sh
# text to ids on one thread, against the tokenizers library for Python
#
# The texts are hh-rlhf's and the tokenizers the official ones where HA_TEST_DATA has them, else the
# demo's.  HA_PYTHON names a Python that has tokenizers.  Both sides: processor time, the fastest of
# three passes, no special tokens; ids must be the same.
set -eu

for python in ${HA_PYTHON:-build-oracle/bin/python3 python3}; do
    "$python" -c 'import tokenizers' 2>/dev/null && break
    python=
done
if [ -z "$python" ]; then
    echo "tests/bench/tokenize.sh: no Python with tokenizers; set HA_PYTHON to one, or run" \
        "sh tests/golden/make.sh, which makes build-oracle" >&2
    exit 2
fi
ninja -C "$HA_BUILD" tests/bench/bench_tokenize >"$HA_BUILD.log" 2>&1 || { cat "$HA_BUILD.log" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

texts() { # JSON Lines of dialogues on standard input
    "$python" -c 'import json, sys
for line in sys.stdin:
    print(json.dumps(json.loads(line)["chosen"]))' >"$work/texts.jsonl"
}
if [ -n "${HA_TEST_DATA:-}" ] && [ -d "$HA_TEST_DATA/tokenizers" ] && [ -d "$HA_TEST_DATA/hh-rlhf" ]; then
    gzip -cd "$HA_TEST_DATA/hh-rlhf/helpful-base/test.jsonl.gz" | texts
    folders=$(echo "$HA_TEST_DATA"/tokenizers/*/)
else
    texts <deploy/demo/data/train.jsonl
    folders=$(echo deploy/demo/models/*/)
fi
for folder in $folders; do
    model=$work/$(basename "$folder")
    mkdir "$model"
    cp "$folder"/tokenizer* "$model/"
    [ ! -f "$model/tokenizer.json.gz" ] || gzip -df "$model/tokenizer.json.gz"
done

RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false "$python" - "$work" \
    "$HA_BUILD/tests/bench/bench_tokenize" <<'PYTHON'
import json, math, pathlib, subprocess, sys, time
import tokenizers

work, program = pathlib.Path(sys.argv[1]), sys.argv[2]
texts = [json.loads(line) for line in open(work / "texts.jsonl")]
size = sum(len(text.encode()) for text in texts)
ratios = []
print(f"{len(texts)} texts, {size / 1e6:.2f} MB, one thread, tokenizers {tokenizers.__version__}")
print(f"{'tokenizer':16} {'ids':>9} {'library MB/s':>13} {'ours MB/s':>10} {'ratio':>6}")
for folder in sorted(path for path in work.iterdir() if path.is_dir()):
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    best = math.inf
    for _ in range(3):
        start = time.process_time()
        encoded = library.encode_batch_fast(texts, add_special_tokens=False)
        best = min(best, time.process_time() - start)
    count = sum(len(x.ids) for x in encoded)
    total = sum((k + 1) * id for x in encoded for k, id in enumerate(x.ids)) % 2**64
    ours = subprocess.run([program, folder, work / "texts.jsonl"], check=True, capture_output=True,
                          text=True).stdout.split()
    if [int(ours[2]), int(ours[3])] != [count, total]:
        sys.exit(f"{folder.name}: the ids differ from the library's")
    ratios.append(best / float(ours[4]))
    print(f"{folder.name:16} {count:9} {size / 1e6 / best:13.2f} "
          f"{size / 1e6 / float(ours[4]):10.2f} {ratios[-1]:6.2f}")
print(f"tokenize ratio {math.prod(ratios) ** (1 / len(ratios)):.2f}")
PYTHON
