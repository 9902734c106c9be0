"""TypiClust, ProbCover, MaxHerding and Cluster-Margin: ours beside plain loops as the public code has them (see README.md)

    python benchmarks/typiclust_probcover_herding.py            # 50,000 x 256, k=1000
    python benchmarks/typiclust_probcover_herding.py --n 10000 --k 200
"""
import argparse, resource, time, warnings
from common import make, seconds, use_threads

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--n', type=int, default=50_000)
p.add_argument('--d', type=int, default=256)
p.add_argument('--k', type=int, default=1000)
p.add_argument('--threads', type=int, default=2)
p.add_argument('--delta', type=float, help='radius of the balls; default: that at which a ball holds --near rows on average')
p.add_argument('--near', type=int, default=100)
p.add_argument('--cpu', action='store_true', help='seconds of the processor, for a busy machine; with --threads 1')
p.add_argument('--steps', type=int, nargs=2, default=[5, 55], help='loops are timed at these k, then extended to k')
p.add_argument('--only', nargs='*', default=['typiclust', 'probcover', 'maxherding', 'others'])
args = p.parse_args()
use_threads(args.threads)

import numpy as np
import torch
from al_repro import Query, build

if args.cpu: time.perf_counter = time.process_time # `seconds` asks it


def radius(x):
    "The radius at which a ball holds `--near` rows on average, from a sample"
    some = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:500]]
    return float(np.quantile(torch.cdist(some, x).numpy(), args.near/len(x)))


def edges_loop(x, k, delta):
    "ProbCover by a list of edges, searched anew for every pick: two passes over all edges each time"
    rows, cols = [], []
    for a in range(0, len(x), 500):
        i, j = (torch.cdist(x[a:a + 500], x) < delta).nonzero().T
        rows.append(i.numpy() + a)
        cols.append(j.numpy())
    rows, cols, picks = np.concatenate(rows), np.concatenate(cols), []
    for _ in range(k):
        picks.append(int(np.bincount(rows, minlength=len(x)).argmax()))
        new = cols[rows == picks[-1]]
        keep = ~np.isin(cols, new)
        rows, cols = rows[keep], cols[keep]
    return picks


def kernel_loop(x, k, h=1., some=10_000):
    "MaxHerding on as many candidates as ours: the gains of all candidates anew for every pick"
    x = x[:some]
    kernel = torch.cdist(x, x).square_().div_(-h**2).exp_()
    served, picks = torch.zeros(len(x)), []
    for _ in range(k):
        gains = torch.cat([(c - served).clamp_(min=0).sum(1) for c in kernel.split(1000)])
        gains[picks] = -1
        picks.append(int(gains.argmax()))
        served = torch.maximum(served, kernel[picks[-1]])
    return picks


def minibatch_loop(x, k):
    "TypiClust with scikit-learn: mini-batch k-means, all distances inside a cluster for every pick"
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import pairwise_distances
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        labels = MiniBatchKMeans(min(k, 500), batch_size=5000, random_state=0).fit_predict(x.numpy())
    ids, size = np.unique(labels, return_counts=True)
    order, picks = ids[np.argsort(-size)][:(size > 5).sum()], []
    for i in range(k):
        rows = np.flatnonzero(labels == order[i % len(order)])
        if not len(rows): continue
        d = np.sort(pairwise_distances(x[rows].numpy()), 1)[:, 1:max(2, min(20, len(rows)//2) + 1)]
        best = rows[d.mean(1).argmin()]
        picks.append(best)
        labels[best] = -1
    return picks


def extended(f, *a):
    "Seconds for `k` picks from the time per pick between two smaller numbers of picks"
    (ta, _), (tb, _) = (seconds(f, *a[:1], n, *a[1:]) for n in args.steps)
    return ta + max(0, tb - ta)/(args.steps[1] - args.steps[0])*(args.k - args.steps[0])


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20


def show(name, ours, theirs=None, what=''):
    ratio = f'{theirs:9.1f}{theirs/ours:8.1f}  {what}' if theirs else f'{"":17}  {what}'
    print(f'{name:16}{ours:9.1f}{ratio}; peak so far {peak():.2f} GiB', flush=True)


x = torch.nn.functional.normalize(make('blobs', args.n, args.d), dim=1)
labelled = np.arange(100)
labels = np.random.default_rng(0).integers(0, 10, 100)
probs = np.random.default_rng(0).dirichlet(np.ones(10), args.n).astype(np.float32)
arrays = dict(features=x.numpy(), embeds=x.numpy(), probs=probs, labelled=labelled, labels=labels)


def picks(spec): return build(spec)(Query.from_arrays(**arrays), args.k)


delta = args.delta or radius(x)
print(f'n={args.n:,} d={args.d} k={args.k} float32, {args.threads} threads, torch {torch.__version__}; delta {delta:.3f}; '
      f'loops at k={args.steps[0]} and {args.steps[1]}, extended by the time per pick; data and query {peak():.2f} GiB\n')
print(f'{"":16}{"ours, s":>9}{"loop, s":>9}{"/ ours":>8}')
if 'typiclust' in args.only:
    show('typiclust', seconds(picks, 'typiclust')[0], seconds(minibatch_loop, x, args.k)[0], 'scikit-learn, mini-batches')
if 'probcover' in args.only:
    ours = seconds(picks, f'probcover(delta={delta})')[0]
    show('probcover', ours, extended(edges_loop, x, delta), 'a list of edges')
    show('  its radius', seconds(picks, 'probcover')[0] - ours, what='k-means of ten clusters and 10,000 rows judged')
if 'maxherding' in args.only:
    show('maxherding', seconds(picks, 'maxherding')[0], extended(kernel_loop, x), 'all gains anew, the kernel of 10,000 held')
if 'others' in args.only:
    for name in 'uherding', 'representative', 'cluster_margin': show(name, seconds(picks, name)[0])
