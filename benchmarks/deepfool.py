"""DeepFool on a LeNet: all inputs at once against one at a time, and against foolbox where it is installed, in one run.

The network is trained for a moment on digits of 28 x 28, and the search is for the nearest class change of other digits: ten candidates, overshoot .02, inputs
kept in [0,1], 50 steps at most, the same for all. Prints seconds, ratios, and how far the distances found differ.

    pip install foolbox                    # optional
    python benchmarks/deepfool.py [--n 200] [--loop 200] [--threads 1] [--device cpu|cuda]
"""
import argparse, math, time

def network(device):
    "A trained LeNet without gradients of its own, and (n,1,28,28) float images it has not seen."
    import numpy as np, torch
    from al_repro.data.catalog import load
    from al_repro.models.nets import Member
    from al_repro.models.recipe import Recipe
    from al_repro.models.train import fit
    data = load('digits', size=28)
    ids = np.random.default_rng(0).permutation(len(data.x))
    fitted = fit(Recipe('lenet', steps=150, holdout=0, checkpoint='last'), data, [ids[:200]], [0])
    return Member(fitted.net).eval().requires_grad_(False).to(device), (data.x[ids[200:]].float()/255).to(device)

def foolbox_attack(model, x, rows=128):
    "Distances by foolbox, in chunks of as many rows as ours; None if it is not installed."
    try: import foolbox
    except ImportError: return None
    import torch
    attack, wrapped, out = foolbox.attacks.L2DeepFoolAttack(steps=50, candidates=10, overshoot=.02), foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device), []
    for part in x.split(rows):
        with torch.no_grad(): labels = model(part).argmax(1)
        _, moved, success = attack(wrapped, part, labels, epsilons=None)
        out.append(torch.where(success, (moved - part).flatten(1).norm(dim=1), math.inf))
    return torch.cat(out).cpu().numpy()

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--n', type=int, default=200, help='inputs'); a.add_argument('--loop', type=int, default=200, help='inputs of the loop, which is scaled to n')
    a.add_argument('--threads', type=int, default=1); a.add_argument('--device', default='cpu')
    a = a.parse_args()
    import numpy as np, torch
    from al_repro.models.train import keep_memory
    from al_repro.strategies.dfal import boundary_step, deepfool, deepfool_loop, quick_input_gradient
    keep_memory(); torch.set_num_threads(a.threads)
    model, x = network(a.device)
    x = x.repeat(math.ceil(a.n/len(x)), 1, 1, 1)[:a.n]
    def timed(f):
        t = time.perf_counter(); r = f()
        if a.device == 'cuda': torch.cuda.synchronize()
        return r, time.perf_counter() - t
    def step(): return boundary_step(model, x[:128], model(x[:128]).argsort(descending=True))
    def quick():
        with quick_input_gradient(model): return step()
    deepfool(model, x[:20]); foolbox_attack(model, x[:20]) # warm up
    found, ours = timed(lambda: deepfool(model, x))
    (loop, _), seconds = timed(lambda: deepfool_loop(model, x[:a.loop]))
    theirs, peer = timed(lambda: foolbox_attack(model, x))
    slow, fast = (min(timed(f)[1] for _ in range(3)) for f in (step, quick))
    print(f'{a.n} inputs, {found.flipped.mean():.1%} cross, after {found.iterations.mean():.1f} steps in the mean, {found.iterations.max()} at most')
    apart = lambda d: f'distances differ by {np.median(abs(d/found.distance[:len(d)] - 1)[np.isfinite(d)]):.1e} in the median'
    print(f'{ours:8.2f} s  all at once (ours)')
    print(f'{seconds*a.n/len(loop):8.2f} s  one at a time, from {len(loop)} inputs: {seconds*a.n/len(loop)/ours:.1f} times ours; {apart(loop)}')
    print(f'           a step of 128 inputs with the plain backward pass of the first layer: {slow/fast:.2f} times ours')
    if theirs is None: print('           foolbox is not installed')
    else: print(f'{peer:8.2f} s  foolbox, {np.isfinite(theirs).mean():.1%} cross: {peer/ours:.1f} times ours; {apart(theirs)}')

if __name__ == '__main__': main()
