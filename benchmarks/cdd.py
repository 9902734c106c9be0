"""Cluster distance difference: ours beside peers, in one run (see README.md)

    python benchmarks/cdd.py          # n=50,000, 1000 centres
    python benchmarks/cdd.py --big    # 1.28 million rows: seconds and peak memory
"""
import argparse, resource
from common import make, seconds, use_threads

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--n', type=int, default=50_000)
p.add_argument('--d', type=int, default=512)
p.add_argument('--k', type=int, default=1000, help='centres')
p.add_argument('--threads', type=int, default=2)
p.add_argument('--big', action='store_true')
args = p.parse_args()
use_threads(args.threads)

import numpy as np
import torch
from al_repro.strategies.bal import cluster_distance_difference


def product(x, c): # one float32 matrix of all distances
    d = torch.cdist(torch.from_numpy(x), torch.from_numpy(c)).topk(2, largest=False).values
    return (d[:, 1] - d[:, 0]).numpy()

def sklearn(x, c):
    from sklearn.metrics.pairwise import euclidean_distances
    d = np.partition(euclidean_distances(x, c), 1, axis=1)[:, :2]
    return d[:, 1] - d[:, 0]

def exact(x, c): # float64, direct differences
    x, c = torch.from_numpy(x).double(), torch.from_numpy(c).double()
    d = torch.cat([torch.cdist(r, c, compute_mode='donot_use_mm_for_euclid_dist').topk(2, largest=False).values for r in x.split(2000)])
    return (d[:, 1] - d[:, 0]).numpy()


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20

if args.big: args.n = 1_280_000
x = make('clumps', args.n, args.d).numpy()
c = x[np.random.default_rng(0).choice(args.n, args.k, replace=False)] + np.float32(.01)
print(f'n={args.n:,} d={args.d}, {args.k} centres, float32, {args.threads} threads, torch {torch.__version__}; {peak():.2f} GiB with the data')
cluster_distance_difference(x[:2000], c)
t0, ours = seconds(cluster_distance_difference, x, c)
print(f'ours      {t0:8.2f} s, peak {peak():.2f} GiB')
if not args.big:
    want = exact(x, c)
    print(f'          largest error {np.abs(ours - want).max():.1e}')
    for f in product, sklearn:
        t, got = seconds(f, x, c)
        print(f'{f.__name__:9} {t:8.2f} s, {t/t0:.2f} times ours, largest error {np.abs(got - want).max():.1e}, peak {peak():.2f} GiB')
