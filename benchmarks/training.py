"""Twenty seeds of LeNet: one after the other against side by side, in one run.

20 seeds x 20 epochs on 1,000 images of 28 x 28, batch 32. On a CPU "side by side" means worker processes of one thread each, as the
runner uses them; on a GPU it means the members axis of `fit`. Prints seconds and ratios; start-up of the workers is shown apart.

    python benchmarks/training.py [--seeds 20] [--epochs 20] [--device cpu|cuda]
"""
import argparse, multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

def made_up(device='cpu'):
    import torch
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1000, 1, 28, 28), generator=g, dtype=torch.uint8).to(device)
    return SimpleNamespace(x=x, y=torch.randint(0, 10, (1000,), generator=g).to(device), shape=(1, 28, 28), n_classes=10)

def train(seeds, epochs, data, together=False):
    import numpy as np
    from al_repro.models.recipe import Recipe
    from al_repro.models.train import fit
    recipe, ids = Recipe('lenet', epochs=epochs, holdout=0, checkpoint='last'), np.arange(1000)
    for group in ([seeds] if together else [[s] for s in seeds]): fit(recipe, data, [ids]*len(group), group)

def start_worker():
    import torch
    from al_repro.models.train import keep_memory
    torch.set_num_threads(1); keep_memory()
    train([0], 1, made_up())

def work(args): train([args[0]], args[1], made_up())

def timed(f):
    t = time.perf_counter(); f(); return time.perf_counter() - t

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--seeds', type=int, default=20); a.add_argument('--epochs', type=int, default=20); a.add_argument('--device', default='cpu')
    a = a.parse_args()
    import torch
    from al_repro.models.train import keep_memory
    seeds, rows = list(range(a.seeds)), []
    if a.device == 'cuda':
        data = made_up('cuda')
        sync = lambda f: (f(), torch.cuda.synchronize())
        train([0], 1, data); train(seeds, 1, data, together=True) # warm up
        rows.append(('one after the other', timed(lambda: sync(lambda: train(seeds, a.epochs, data)))))
        rows.append(('members in one batch', timed(lambda: sync(lambda: train(seeds, a.epochs, data, together=True)))))
    else:
        data, cores = made_up(), os.cpu_count()
        for threads in sorted({1, cores}):
            torch.set_num_threads(threads); train([0], 1, data)
            rows.append((f'one after the other, {threads} thread(s), as torch comes', timed(lambda: train(seeds, a.epochs, data))))
        keep_memory()
        for threads in sorted({1, cores}):
            torch.set_num_threads(threads); train([0], 1, data)
            rows.append((f'one after the other, {threads} thread(s), keeping memory', timed(lambda: train(seeds, a.epochs, data))))
        with ProcessPoolExecutor(cores, multiprocessing.get_context('spawn'), start_worker) as pool:
            start = timed(lambda: list(pool.map(work, [(0, 1)]*cores)))
            rows.append((f'{cores} worker processes of one thread (start-up {start:.1f} s apart)', timed(lambda: list(pool.map(work, [(s, a.epochs) for s in seeds])))))
    for name,s in rows: print(f'{s:8.1f} s  {name}; the last is {s/rows[-1][1]:.2f} times as fast')

if __name__ == '__main__': main()
