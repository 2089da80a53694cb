# Sourced by run.sh and pack.sh: what is run on a GPU, as lies in a build folder.
tests="cuda gemm rows specials optimizer head attention"
programs="tests/gpu/bench_kernels"
for name in $tests; do
    programs="$programs tests/unit/kernels/test_$name"
done
