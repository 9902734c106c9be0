"""BADGE (D² sampling among gradient embeddings): ours beside peers, in one run (see README.md)

    python benchmarks/badge.py                 # n=50,000, 10 classes, k=1000, d=512 and 128
"""
import argparse, statistics
from common import make, seconds, use_threads

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--n', type=int, default=50_000)
p.add_argument('--d', type=int, nargs='+', default=[512, 128])
p.add_argument('--c', type=int, default=10)
p.add_argument('--k', type=int, default=1000)
p.add_argument('--data', nargs='+', default=['normal', 'clumps'], choices=['normal', 'clumps'])
p.add_argument('--threads', type=int, default=2)
p.add_argument('--repeats', type=int, default=5, help='runs of ours; the median is reported')
p.add_argument('--steps', type=int, nargs=2, default=[5, 25], help='slow ones are timed at these k, then extrapolated')
p.add_argument('--peers', nargs='*', help='only these rows of the table')
args = p.parse_args()
use_threads(args.threads)

import numpy as np
import torch
from al_repro.query.query import Query
from al_repro.strategies.badge import badge, guess_residual


def data(kind, n, d, c):
    "(n,c) probabilities of a linear model on (n,d) made-up embeddings, float32"
    x = make(kind, n, d)
    w = torch.randn(d, c, generator=torch.Generator().manual_seed(1))
    return (2*x @ w/x.norm(dim=1).mean()).softmax(1).numpy(), x.numpy()


def left_over(q, h, picks, rows=2000):
    "Sum of D² that the picks leave on some rows, over that of the first pick alone: what the odds make small"
    some = np.random.default_rng(0).permutation(len(h))[:rows]
    sq = lambda i: (q[i]**2).sum(1)*(h[i].astype(float)**2).sum(1)
    d2 = sq(some)[:, None] + sq(picks) - 2*(q[some] @ q[picks].T)*(h[some].astype(float) @ h[picks].T)
    return np.maximum(d2, 0).min(1).sum()/d2[:, 0].sum()


def factored_loop(probs, x, k):
    "One pass of matrix-vector products per pick, on the factors: the usual fast loop, float32"
    rng, q, h = np.random.default_rng(0), torch.from_numpy(guess_residual(probs)).float(), torch.from_numpy(x)
    sq = q.square().sum(1)*h.square().sum(1)
    picks, d2 = [int(sq.argmax())], torch.full_like(sq, torch.inf)
    for _ in range(k - 1):
        i = picks[-1]
        torch.minimum(d2, (sq + sq[i] - 2*(q @ q[i])*(h @ h[i])).clamp_(min=0), out=d2)
        d2[i] = 0
        total = d2.double().cumsum(0).numpy()
        picks.append(int(np.searchsorted(total, rng.random()*total[-1], side='right')))
    return picks


def as_published(probs, x, k):
    "The steps of the authors' code: formed gradients, one call of pairwise_distances and one discrete law per pick"
    from scipy import stats
    from sklearn.metrics import pairwise_distances
    g = (guess_residual(probs).astype(np.float32)[:, :, None]*x[:, None]).reshape(len(x), -1)
    picks = [int(np.argmax([np.linalg.norm(row) for row in g]))]
    d2, state = np.full(len(g), np.inf), np.random.RandomState(0)
    while len(picks) < k:
        new = pairwise_distances(g, g[picks[-1]][None]).ravel().astype(float)
        for i in range(len(g)):
            if d2[i] > new[i]: d2[i] = new[i]
        law = stats.rv_discrete(values=(np.arange(len(g)), d2**2/(d2**2).sum()))
        i = picks[0]
        while i in picks: i = int(law.rvs(size=1, random_state=state)[0])
        picks.append(i)
    return picks


def skactiveml(probs, x, k):
    "scikit-activeml's Badge, given the probabilities and the embeddings"
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge
    class Given(SkactivemlClassifier):
        def fit(self, X, y, sample_weight=None): return self
        def predict_proba(self, X): return probs[-len(X):], x[-len(X):]
    labelled = np.r_[0., np.full(len(x), np.nan)] # one labelled row before the pool
    query = Badge(random_state=0).query
    return (np.array(query(np.r_[x[:1], x], labelled, Given(classes=range(probs.shape[1])), fit_clf=False, batch_size=k)) - 1).tolist()


PEERS = dict(factored_loop=factored_loop, as_published=as_published, skactiveml=skactiveml)


def extrapolated(f, probs, x, k):
    "Seconds for `k` picks from the time per pick between two smaller runs"
    a, b = sorted(args.steps)
    f(probs[:50], x[:50], 2) # imports
    if k <= b: return seconds(f, probs, x, k)[0]
    ta, tb = (seconds(f, probs, x, m)[0] for m in (a, b))
    return ta + (tb - ta)/(b - a)*(k - a)


print(f'n={args.n:,} c={args.c} k={args.k} float32, {args.threads} threads, torch {torch.__version__}; '
      f'others timed at k={args.steps[0]} and {args.steps[1]}, extrapolated by the time per pick\n')
print(f'{"data":8}{"d":>5}  {"":16}{"seconds":>9}{"/ ours":>8}')
for kind in args.data:
    for d in args.d:
        probs, x = data(kind, args.n, d, args.c)
        def ours(seed=0): return badge(Query.from_arrays(probs=probs, embeds=x, seed=seed), args.k)
        ours()
        took, picks = zip(*(seconds(ours, s) for s in range(args.repeats)))
        t, q = statistics.median(took), guess_residual(probs)
        left = left_over(q, x, picks[0])
        print(f'{kind:8}{d:5}  {"ours":16}{t:9.3f}{1:8.1f}  (best {min(took):.3f}) leaves {left:.4f} of D²', flush=True)
        for name in args.peers if args.peers is not None else PEERS:
            try: s = extrapolated(PEERS[name], probs, x, args.k)
            except ImportError as e: print(f'{"":15}{name:16}  not installed: {e}')
            else: print(f'{"":15}{name:16}{s:9.2f}{s/t:8.1f}', flush=True)
