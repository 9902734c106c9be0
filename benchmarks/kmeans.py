"""Weighted k-means with many clusters: ours beside peers, in one run (see README.md)

    python benchmarks/kmeans.py
"""
import argparse, statistics, warnings
from common import make, seconds, use_threads

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--n', type=int, default=10_000)
p.add_argument('--d', type=int, nargs='+', default=[128])
p.add_argument('--k', type=int, default=1000)
p.add_argument('--data', nargs='+', default=['normal', 'clumps', 'blobs'], choices=['normal', 'clumps', 'blobs'])
p.add_argument('--weighted', action='store_true', help='uniform random weights in place of none')
p.add_argument('--threads', type=int, default=1)
p.add_argument('--seeds', type=int, default=3, help='runs of each; medians are reported')
p.add_argument('--peers', nargs='*', help='only these rows of the table')
args = p.parse_args()
use_threads(args.threads)

import numpy as np
import torch
from al_repro.select.kmeans import assign_distinct, weighted_kmeans


def ours(x, k, w, seed): return weighted_kmeans(x, k, w, seed=seed).centers

def sklearn(x, k, w, seed):
    from sklearn.cluster import KMeans
    return KMeans(k, n_init=1, random_state=seed).fit(x, sample_weight=w).cluster_centers_

def faiss(x, k, w, seed):
    import faiss
    faiss.omp_set_num_threads(args.threads)
    km = faiss.Kmeans(x.shape[1], k, niter=20, seed=seed, min_points_per_centroid=1)
    km.train(x, weights=w)
    return km.centroids


PEERS = dict(sklearn=sklearn, faiss=faiss)


def inertia(x, c, w):
    "Float64, by direct differences from the nearest centre"
    x, c = torch.from_numpy(x).double(), torch.from_numpy(np.asarray(c)).double()
    to = torch.cat([torch.cdist(r, c).argmin(1) for r in x.split(1024)])
    d2 = (x - c[to]).square().sum(1).numpy()
    return float(d2.sum() if w is None else d2 @ w)


def table():
    print(f'n={args.n:,} k={args.k} float32, {args.threads} threads, torch {torch.__version__}, '
          f'{"random" if args.weighted else "no"} weights; medians of {args.seeds} seeds\n')
    print(f'{"data":8}{"d":>5}  {"":10}{"seconds":>9}{"/ ours":>8}{"inertia":>14}{"/ ours":>9}')
    for kind in args.data:
        for d in args.d:
            x = make(kind, args.n, d, blobs=args.k).numpy()
            w = np.random.default_rng(0).uniform(size=args.n).astype(np.float32) if args.weighted else None
            for name, f in {'ours': ours, **{a: g for a, g in PEERS.items() if args.peers is None or a in args.peers}}.items():
                try: f(x[:200], 5, None if w is None else w[:200], 0)
                except ImportError as e:
                    print(f'{"":15}{name:10}  not installed: {e}')
                    continue
                t, cs = zip(*(seconds(f, x, args.k, w, s) for s in range(args.seeds)))
                t, e = statistics.median(t), statistics.median(inertia(x, c, w) for c in cs)
                if name == 'ours': t0, e0, centers = t, e, cs[0]
                lead = f'{kind:8}{d:5}' if name == 'ours' else f'{"":13}'
                print(f'{lead}  {name:10}{t:9.2f}{t / t0:8.2f}{e:14.1f}{e / e0:9.4f}', flush=True)
            t, rows = seconds(assign_distinct, x, centers)
            print(f'{"":15}one distinct row per centre: {t:.2f} s, {len(set(rows.tolist()))} rows')


with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    table()
