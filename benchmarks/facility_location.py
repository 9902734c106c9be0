"""Greedy facility location: ours beside peers, in one run (see README.md)

    python benchmarks/facility_location.py            # n=10,000, k=1000, d=128
    python benchmarks/facility_location.py --big      # n=50,000: distances not kept; seconds and peak memory
"""
import argparse, resource, statistics
from common import make, seconds, use_threads

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--n', type=int, default=10_000)
p.add_argument('--d', type=int, nargs='+', default=[128])
p.add_argument('--k', type=int, default=1000)
p.add_argument('--data', nargs='+', default=['normal', 'clumps'], choices=['normal', 'clumps'])
p.add_argument('--threads', type=int, default=1)
p.add_argument('--repeats', type=int, default=3, help='runs of each; the median is reported')
p.add_argument('--peers', nargs='*', help='only these rows of the table')
p.add_argument('--check', action=argparse.BooleanOptionalAction, default=True, help='coverage against an exact greedy search in float64')
p.add_argument('--big', action='store_true')
args = p.parse_args()
use_threads(args.threads)

import numpy as np
import torch
from al_repro.select.facility import coverage, facility_location


def exact(x, k):
    "Greedy in float64 without bounds: all gains brought up to date after every pick, through the rows that came nearer"
    x = x.double()
    sq = x.square().sum(1)
    d = torch.addmm(sq[:, None] + sq, x, x.T, alpha=-2).clamp_(min=0).fill_diagonal_(0)
    picks = [int(d.sum(1).argmin())]
    near = d[picks[0]].clone()
    gains = torch.cat([(near - c).clamp_(min=0).sum(1) for c in d.split(256)])
    while len(picks) < k:
        gains[picks[-1]] = -1
        picks.append(int(gains.argmax()))
        new = torch.minimum(near, d[picks[-1]])
        for i in (new < near).nonzero()[:, 0].split(256):
            c = d[i]
            gains -= (near[i, None] - c).clamp_(min=0).sum(0) - (new[i, None] - c).clamp_(min=0).sum(0)
        near = new
    return picks


def similarities(x):
    "Largest squared distance minus squared distance, float32, by the fastest common way"
    sq = np.square(x).sum(1)
    d = x @ x.T
    d *= -2
    d += sq
    d += sq[:, None]
    return np.maximum(d.max() - d, 0)


def apricot(optimizer):
    def run(x, k):
        from apricot import FacilityLocationSelection
        return FacilityLocationSelection(k, metric='precomputed', optimizer=optimizer).fit(similarities(x.numpy())).ranking
    return run


def submodlib(x, k):
    from submodlib import FacilityLocationFunction
    f = FacilityLocationFunction(n=len(x), mode='dense', sijs=similarities(x.numpy()), separate_rep=False)
    return [i for i, _ in f.maximize(budget=k, optimizer='LazyGreedy', stopIfZeroGain=False, stopIfNegativeGain=False, show_progress=False)]


PEERS = {'apricot lazy': apricot('lazy'), 'apricot two-stage': apricot('two-stage'), 'submodlib lazy': submodlib}


def table():
    print(f'n={args.n:,} k={args.k} float32, {args.threads} threads, torch {torch.__version__}; '
          f'similarities included; medians of {args.repeats}\n')
    print(f'{"data":8}{"d":>5}  {"":20}{"seconds":>9}{"/ ours":>8}  coverage / exact - 1')
    for kind in args.data:
        for d in args.d:
            x = make(kind, args.n, d)
            fs = {'ours': facility_location, **{a: f for a, f in PEERS.items() if args.peers is None or a in args.peers}}
            best = coverage(x, exact(x, args.k)) if args.check else 0
            for name, f in fs.items():
                try: f(x[:200], 5)
                except ImportError as e:
                    print(f'{"":15}{name:20}  not installed: {e}')
                    continue
                t, picks = zip(*(seconds(f, x, args.k) for _ in range(args.repeats)))
                t = statistics.median(t)
                if name == 'ours': ours = t
                shown = f'{coverage(x, picks[0]) / best - 1:+.1e}' if args.check else ''
                print(f'{kind if name == "ours" else "":8}{d if name == "ours" else "":5}  {name:20}{t:9.2f}{t / ours:8.1f}  {shown}', flush=True)


def big():
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    x = make('normal', 50_000, args.d[0])
    print(f'n={len(x):,} d={args.d[0]} float32; peak after making it {peak():.2f} GiB', flush=True)
    t, picks = seconds(facility_location, x, args.k)
    print(f'k={args.k}: {t:.1f} s with {args.threads} threads, peak {peak():.2f} GiB, {len(set(picks.tolist()))} distinct picks')


big() if args.big else table()
