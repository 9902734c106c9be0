"""What the benchmarks share: made-up points, threads, seconds"""
import os, time


def use_threads(n):
    "Have every library take `n` threads; to be called before they are imported"
    for v in 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NUMBA_NUM_THREADS': os.environ[v] = str(n)
    import torch
    torch.set_num_threads(n)


def make(kind, n, d, seed=0, blobs=1000):
    "(n,d) float32: independent normals, ten clumps of unequal width after a ReLU, as embeddings look, or `blobs` equal Gaussians"
    import torch
    g = torch.Generator().manual_seed(seed)
    if kind == 'normal': return torch.randn(n, d, generator=g)
    m = 10 if kind == 'clumps' else blobs
    x = torch.randn(m, d, generator=g)[torch.randint(m, (n,), generator=g)]
    x.add_(torch.randn(n, d, generator=g) * (torch.rand(n, 1, generator=g) if kind == 'clumps' else .5))
    return x.relu_() if kind == 'clumps' else x


def seconds(f, *a):
    "How long `f(*a)` takes, and what it gives"
    t = time.perf_counter()
    out = f(*a)
    return time.perf_counter() - t, out
