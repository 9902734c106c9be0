"""Scoring a pool of 50,000 images of MNIST's size with 100 Monte Carlo dropout samples, against one plain pass, in one run.

Three ways: a plain pass; ours, which runs everything before the first dropout once and folds the masks into the last layer; and the loop over 100 full passes,
timed on a part of the pool and scaled.

    python benchmarks/mc_dropout.py [--rows 50000] [--samples 100] [--device cpu|cuda]
"""
import argparse, time

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--rows', type=int, default=50_000); a.add_argument('--samples', type=int, default=100); a.add_argument('--device', default='cpu')
    a = a.parse_args()
    import numpy as np, torch
    from al_repro.models.nets import build_model, init_weights
    from al_repro.models.outputs import forward_pass, mc_pass
    from al_repro.models.train import keep_memory
    keep_memory()
    gen = lambda: torch.Generator().manual_seed(0)
    net = init_weights(build_model('lenet', (1, 28, 28), 10), [gen()]).eval().to(a.device, memory_format=torch.channels_last)
    x, ids = torch.randint(0, 256, (a.rows, 1, 28, 28), generator=gen(), dtype=torch.uint8).to(a.device), np.arange(a.rows)[None]
    def seconds(f, times=3):
        f(); best = []
        for _ in range(times): t = time.perf_counter(); f(); best.append(time.perf_counter() - t)
        return sorted(best)[times//2]
    plain = seconds(lambda: forward_pass(net, x, ids))
    mc = seconds(lambda: mc_pass(net, x, ids, a.samples, [gen()]))
    part = ids[:, :max(1, a.rows//20)]
    loop = seconds(lambda: [forward_pass(net, x, part) for _ in range(a.samples)], 1)*ids.shape[1]/part.shape[1]
    print(f'{plain:8.2f} s  one plain pass of {a.rows} rows\n{mc:8.2f} s  {a.samples} samples, shared trunk: {mc/plain:.2f} times the plain pass\n'
          f'{loop:8.2f} s  {a.samples} full passes (scaled from {part.shape[1]} rows): {loop/mc:.0f} times ours')

if __name__ == '__main__': main()
