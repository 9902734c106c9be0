"""Farthest-first k-center: ours beside peers, in one run (see README.md)

    python benchmarks/k_center.py                 # the table, n=50,000, k=1000, d=512 and 128
    python benchmarks/k_center.py --big           # 1.28 million x 512, k=1000: seconds and peak memory
"""
import argparse, resource, statistics
from common import make, seconds, use_threads

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--n', type=int, default=50_000)
p.add_argument('--d', type=int, nargs='+', default=[512, 128])
p.add_argument('--k', type=int, default=1000)
p.add_argument('--data', nargs='+', default=['normal', 'clumps'], choices=['normal', 'clumps'])
p.add_argument('--threads', type=int, default=2)
p.add_argument('--repeats', type=int, default=5, help='runs of ours; the median is reported')
p.add_argument('--steps', type=int, nargs=2, default=[20, 120], help='slow ones are timed at these k, then extrapolated')
p.add_argument('--peers', nargs='*', help='only these rows of the table')
p.add_argument('--check', action=argparse.BooleanOptionalAction, default=True, help='all picks against a float64 loop')
p.add_argument('--big', action='store_true')
p.add_argument('--big-n', type=int, default=1_280_000)
args = p.parse_args()
use_threads(args.threads)

import numpy as np
import torch
from al_repro.select.kcenter import cover_radius, k_center


def exact(x, k):
    "All picks in float64, to check ours against"
    x = x.double()
    sq = x.square().sum(1)
    d, picks = torch.full_like(sq, torch.inf), [0]
    for _ in range(k):
        torch.minimum(d, torch.addmv(sq + sq[picks[-1]], x, x[picks[-1]], alpha=-2), out=d)
        d[picks[-1]] = -1
        picks.append(int(d.argmax()))
    return picks[1:]


def plain_loop(x, k):
    "The definition, one pass of direct differences per pick, fused as far as torch allows; row 0 is labelled"
    d, picks = torch.cdist(x, x[:1], compute_mode='donot_use_mm_for_euclid_dist')[:, 0], []
    for _ in range(k):
        picks.append(int(d.argmax()))
        new = torch.cdist(x, x[picks[-1]][None], compute_mode='donot_use_mm_for_euclid_dist')[:, 0]
        d = torch.minimum(d, new)
    return picks


def product_loop(x, k):
    "One matrix-vector product per pick: the usual fast loop"
    sq = x.square().sum(1)
    new = lambda c: torch.addmv(sq + c @ c, x, c, alpha=-2)
    d, picks = new(x[0]), []
    for _ in range(k):
        picks.append(int(d.argmax()))
        torch.minimum(d, new(x[picks[-1]]), out=d)
    return picks


def sklearn_loop(x, k):
    "sklearn.metrics.pairwise_distances to one new centre per pick, as most published code does"
    from sklearn.metrics import pairwise_distances
    x = x.numpy()
    d, picks = pairwise_distances(x, x[:1])[:, 0], []
    for _ in range(k):
        picks.append(int(d.argmax()))
        d = np.minimum(d, pairwise_distances(x, x[picks[-1]][None])[:, 0])
    return picks


def skactiveml(x, k):
    "scikit-activeml's CoreSet"
    from skactiveml.pool import CoreSet
    y = np.full(len(x), np.nan)
    y[0] = 0
    return CoreSet(random_state=0).query(x.numpy(), y, batch_size=k).tolist()


PEERS = dict(plain_loop=plain_loop, product_loop=product_loop, sklearn_loop=sklearn_loop, skactiveml=skactiveml)


def extrapolated(f, x, k):
    "Seconds for `k` picks from the time per pick between two smaller runs, and the picks of the larger"
    a, b = sorted(args.steps)
    if k <= b: return seconds(f, x, k)
    f(x, 2)
    ta, tb = seconds(f, x, a)[0], seconds(f, x, b)
    return ta + (tb[0] - ta) / (b - a) * (k - a), tb[1]


def table():
    print(f'n={args.n:,} k={args.k} float32, {args.threads} threads, torch {torch.__version__}, row 0 labelled; '
          f'others timed at k={args.steps[0]} and {args.steps[1]}, extrapolated by the time per pick\n')
    print(f'{"data":8}{"d":>5}  {"":22}{"seconds":>9}{"/ ours":>8}  picks as ours, of those made')
    for kind in args.data:
        for d in args.d:
            x = make(kind, args.n, d)
            ours = lambda: k_center(x, args.k, centers=x[:1])
            ours()
            t, picks = zip(*(seconds(ours) for _ in range(args.repeats)))
            t, best, picks = statistics.median(t), min(t), picks[0].tolist()
            check = sum(a == b for a, b in zip(picks, exact(x, args.k))) if args.check else 0
            print(f'{kind:8}{d:5}  {"ours":22}{t:9.3f}{1:8.1f}  (best {best:.3f}) radius {cover_radius(x, x[[0, *picks]]):.4f}'
                  + f', {check}/{len(picks)} picks as in float64' * args.check, flush=True)
            for name in args.peers if args.peers is not None else PEERS:
                try: s, other = extrapolated(PEERS[name], x, args.k)
                except ImportError as e:
                    print(f'{"":15}{name:22}  not installed: {e}')
                    continue
                same = sum(a == b for a, b in zip(picks, other))
                print(f'{"":15}{name:22}{s:9.2f}{s / t:8.1f}  {same}/{len(other)}', flush=True)


def big():
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    x = torch.empty(args.big_n, 512)
    g = torch.Generator().manual_seed(0)
    for c in x.split(8192): c.normal_(generator=g)
    print(f'n={len(x):,} d=512 float32, {x.nbytes / 2**30:.2f} GiB; peak after making it {peak():.2f} GiB', flush=True)
    t, picks = seconds(k_center, x, args.k, x[:1])
    print(f'k={args.k}: {t:.1f} s, peak {peak():.2f} GiB, {len(set(picks.tolist()))} distinct picks')


big() if args.big else table()
