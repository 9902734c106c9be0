"""BatchBALD, exact joint: ours beside the authors' library, in one run (see README.md)

    python benchmarks/batchbald.py                # n=1000, 10 classes, batch 5, 20 and 100 samples
    python benchmarks/batchbald.py --k 10         # beyond the exact regime: scores of both judged by one estimate
"""
import argparse, contextlib, io, statistics
from common import seconds, use_threads

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--n', type=int, default=1000)
p.add_argument('--c', type=int, default=10)
p.add_argument('--k', type=int, default=5)
p.add_argument('--samples', type=int, nargs='+', default=[20, 100])
p.add_argument('--configurations', type=int, default=10_000, help='exact while c^(k-1) is no more')
p.add_argument('--disagreement', type=float, nargs='+', default=[.25, 1], help='of the made-up members')
p.add_argument('--threads', type=int, default=2)
p.add_argument('--repeats', type=int, default=5, help='runs of ours, and a third as many of the others; medians are reported')
args = p.parse_args()
use_threads(args.threads)

import numpy as np
import torch
from al_repro.strategies.batchbald import informative_batch, joint_information


def answers(n, t, c, spread, seed=0):
    "(n,t,c) float32: classes of unequal doubt, members that agree more or less"
    rng = np.random.default_rng(seed)
    doubt = 3*rng.gamma(1, 1, (n, 1, 1))*rng.normal(size=(n, 1, c))
    logits = doubt + spread*rng.gamma(1, 1, (n, 1, 1))*rng.normal(size=(n, t, c))
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return (e/e.sum(-1, keepdims=True)).astype(np.float32)


def every_gain(mc, k):
    "The definition: the joint of the batch with every row, at every step"
    p = torch.from_numpy(mc).double()
    n, t, c = p.shape
    within = torch.special.entr(p).sum(2).mean(1)
    joint, picks, told = p.new_ones(1, t), [], 0.
    for _ in range(k):
        q = torch.einsum('mt,ntc->nmc', joint, p)/t if len(picks) < 2 else torch.stack([joint @ x/t for x in p])
        scores = torch.special.entr(q).sum((1, 2)) - within - within[picks].sum()
        scores[picks] = -torch.inf
        picks.append(int(scores.argmax()))
        joint = (joint[:, None]*p[picks[-1]].T).reshape(-1, t)
    return picks


def redux(mc, k):
    "batchbald_redux, in float64"
    from batchbald_redux.batchbald import get_batchbald_batch
    logs = torch.from_numpy(mc).double().log()
    with contextlib.redirect_stderr(io.StringIO()): # its progress bars
        return get_batchbald_batch(logs, k, args.configurations, dtype=torch.double).indices


def block(spread, t):
    "The rows of the table for one set of answers"
    mc, exact = answers(args.n, t, args.c, spread), args.c**(args.k - 1) <= args.configurations
    ours = lambda: informative_batch(mc, args.k, args.configurations)
    worth = lambda i: joint_information(mc[i], max(args.configurations, 100_000))
    ours()
    took, out = zip(*(seconds(ours) for _ in range(args.repeats)))
    took, picks = statistics.median(took), out[0][0].tolist()
    print(f'{spread:12}{t:8}  {"ours":16}{took:9.3f}{1:8.1f}  {worth(picks):.6f}', flush=True)
    for name, f in dict(every_gain=every_gain, batchbald_redux=redux).items():
        if name == 'every_gain' and not exact: continue
        try: runs = [seconds(f, mc, args.k) for _ in range(max(1, args.repeats//3))]
        except ImportError as e:
            print(f'{"":22}{name:16}  not installed: {e}')
            continue
        s, other = statistics.median(r[0] for r in runs), list(runs[0][1])
        same = sum(a == b for a, b in zip(picks, other))
        print(f'{"":22}{name:16}{s:9.3f}{s/took:8.1f}  {worth(other):.6f}, {same}/{args.k}', flush=True)


print(f'n={args.n} c={args.c} k={args.k}, {args.threads} threads, torch {torch.__version__}, '
      f'{args.configurations:,} configurations\n')
print(f'{"disagreement":12}{"samples":>8}  {"":16}{"seconds":>9}{"/ ours":>8}  information of the batch, picks as ours')
for spread in args.disagreement:
    for t in args.samples: block(spread, t)
