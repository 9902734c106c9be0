"""Fifty linear heads: all at once against one after the other with scikit-learn, in one run.

Each head has its own rows of made-up features whose spread falls by a hundred from the first direction to the last. Prints
seconds, ratios, and how far each loss lies above the lowest, for the first head, in nats a row.

    python benchmarks/heads.py [--heads 50] [--threads 2]
"""
import argparse
from common import seconds, use_threads

SIZES = ((20, 256), (100, 256), (500, 256), (2000, 256), (200, 1280))  # labelled rows, features

def made_up(m, n, d, classes=10):
    "m sets of n rows of ten overlapping classes"
    import torch
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, d, generator=g)*.25
    y = torch.randint(classes, (m, n), generator=g)
    y[:, :classes] = torch.arange(classes)
    return (centres[y] + torch.randn(m, n, d, generator=g))*torch.logspace(0, -2, d), y

def theirs(x, y, l2, **k):
    from sklearn.linear_model import LogisticRegression
    return [LogisticRegression(C=1/(2*l2), max_iter=10_000, **k).fit(a.numpy(), b.numpy()) for a, b in zip(x, y)]

def loss_of(w, b, x, y, l2):
    "Of one head, in float64"
    import torch
    z = x.double() @ w.double().T + b.double()
    return -z.log_softmax(1)[torch.arange(len(y)), y].sum() + l2*w.double().square().sum()

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--heads', type=int, default=50)
    a.add_argument('--threads', type=int, default=2)
    a.add_argument('--l2', type=float, default=.5)
    a = a.parse_args()
    use_threads(a.threads)
    import torch
    from al_repro.models.heads import fit_logistic
    fit_logistic(*made_up(2, 20, 16), 10, a.l2)
    theirs(*made_up(2, 20, 16), a.l2)
    print('rows x features      ours  scikit-learn   ratio   above the lowest: ours, scikit-learn')
    for n, d in SIZES:
        x, y = made_up(a.heads, n, d)
        ours, (w, b, *_) = seconds(fit_logistic, x, y, 10, a.l2)
        lib, models = seconds(theirs, x, y, a.l2)
        lowest = theirs(x[:1].double(), y[:1], a.l2, tol=1e-9)[0]
        both = (w[0], b[0]), *((torch.tensor(m.coef_), torch.tensor(m.intercept_)) for m in (models[0], lowest))
        one, two, low = (loss_of(*v, x[0], y[0], a.l2).item()/n for v in both)
        print(f'{n:5} x {d:5} {ours:10.3f} s {lib:10.3f} s {lib/ours:6.1f}x   {one - low:.0e}, {two - low:.0e}')

if __name__ == '__main__': main()
