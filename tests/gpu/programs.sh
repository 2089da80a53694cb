# Sourced by run.sh and pack.sh: what is run on a GPU, as lies in a build folder.
tests="kernels/test_cuda kernels/test_gemm kernels/test_rows kernels/test_specials kernels/test_optimizer
kernels/test_head kernels/test_attention kernels/test_dropout kernels/test_record kernels/test_sample model/test_device
model/test_invariant model/test_replay sampling/test_burst dpo/test_dpo_lockstep dpo/test_dpo_memory"
small_tests="kernels/test_rows kernels/test_specials" # under compute-sanitizer
programs="ha-attempt tests/gpu/bench_kernels tests/gpu/bench_step tests/gpu/shape_model"
for name in $tests; do
    programs="$programs tests/unit/$name"
done
scripts="tests/gpu/bench_models.py tests/gpu/bench_train.py tests/gpu/bench_generate.py tests/gpu/rows.py
tests/gpu/table.py tests/gpu/golden_bf16.py tests/gpu/dpo_plain.py tests/gpu/generate_vllm.py tests/gpu/lengths.txt tests/bench/jobs.py
tests/bench/dpo_trl.py tests/bench/generate_hf.py tests/bench/small_model.py"
families="llama-2-demo llama-3.1-demo qwen2.5-demo qwen3-demo" # of the golden files
