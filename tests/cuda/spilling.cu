/* A kernel that needs more registers than its block may have: spills.sh wants it refused. */
__global__ void __launch_bounds__(1024) spilling(float *x, const float *y, int n)
{
    float kept[128];

#pragma unroll
    for (int i = 0; i < 128; i++)
        kept[i] = y[i * n + threadIdx.x];
    for (int round = 0; round < n; round++) {
#pragma unroll
        for (int i = 0; i < 128; i++)
            kept[i] = kept[i] * kept[(i * 7 + 3) % 128] + x[i];
    }
#pragma unroll
    for (int i = 0; i < 128; i++)
        x[i * n + threadIdx.x] = kept[i];
}
