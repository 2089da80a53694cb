/* Calls of CUDA's libraries that fail when a test says so: the linker gives the backend these in
 * place of the emulated ones (--wrap), which they call.
 *
 *   HA_EMULATED_FAULT=CALL:N:CODE     the Nth call since the text was set, and all after it,
 *                                     return CODE
 *
 * The variable is read at every call. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

namespace
{

int fault(const char *call)
{
    static std::string known;
    static long seen;
    const char *text = getenv("HA_EMULATED_FAULT");
    char name[64];
    long first;
    int code;

    if (!text || sscanf(text, "%63[^:]:%ld:%d", name, &first, &code) != 3)
        return 0;
    if (known != text) {
        known = text;
        seen = 0;
    }
    return strcmp(name, call) == 0 && ++seen >= first ? code : 0;
}

} // namespace

/* RESULT CALL(PARAMETERS), which is called with ARGUMENTS. */
#define MAY_FAIL(RESULT, CALL, PARAMETERS, ARGUMENTS)                                              \
    extern "C" RESULT __real_##CALL PARAMETERS;                                                    \
    extern "C" RESULT __wrap_##CALL PARAMETERS;                                                    \
    RESULT __wrap_##CALL PARAMETERS                                                                \
    {                                                                                              \
        int code = fault(#CALL);                                                                   \
                                                                                                   \
        return code ? static_cast<RESULT>(code) : __real_##CALL ARGUMENTS;                         \
    }

MAY_FAIL(cudaError_t, cudaGetDeviceCount, (int *count), (count))
MAY_FAIL(cudaError_t, cudaGetDeviceProperties, (struct cudaDeviceProp * properties, int device),
         (properties, device))
MAY_FAIL(cudaError_t, cudaMalloc, (void **memory, size_t bytes), (memory, bytes))
MAY_FAIL(cudaError_t, cudaMemcpyAsync,
         (void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream),
         (to, from, bytes, kind, stream))
MAY_FAIL(cudaError_t, cudaStreamSynchronize, (cudaStream_t stream), (stream))
MAY_FAIL(cudaError_t, cudaGraphInstantiateWithFlags,
         (cudaGraphExec_t * exec, cudaGraph_t graph, unsigned long long flags),
         (exec, graph, flags))
MAY_FAIL(cudaError_t, cudaGraphLaunch, (cudaGraphExec_t exec, cudaStream_t stream), (exec, stream))
MAY_FAIL(cublasStatus_t, cublasLtCreate, (cublasLtHandle_t * handle), (handle))
MAY_FAIL(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic,
         (cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a,
          cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
          cublasLtMatmulPreference_t preference, int most,
          cublasLtMatmulHeuristicResult_t results[], int *found),
         (handle, operation, a, b, c, d, preference, most, results, found))
MAY_FAIL(cublasStatus_t, cublasLtMatmul,
         (cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void *alpha, const void *a,
          cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
          const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
          cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
          size_t workspace_bytes, cudaStream_t stream),
         (handle, operation, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout,
          algorithm, workspace, workspace_bytes, stream))
