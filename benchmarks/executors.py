"""The digits experiment on a Dask cluster of this machine against processes of our own, with as many workers.

    OMP_NUM_THREADS=1 python benchmarks/executors.py --seeds 2 --workers 2

Both begin with processes that have to import everything. Prints seconds and the ratio, which should be at most 1.15.
"""
import argparse, tempfile, time


def seconds(protocols, seeds, **how):
    "What the runs take that a folder of their own lacks"
    from al_repro.runs.runner import run
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        run(protocols, out, None, seeds, progress=False, **how)
        return time.perf_counter() - start

def on_dask(protocols, seeds, workers):
    "Seconds on a cluster made for it, its start included"
    from distributed import LocalCluster
    start = time.perf_counter()
    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        seconds(protocols, seeds, executor=cluster.scheduler_address.replace('tcp://', 'dask://'))
        return time.perf_counter() - start

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--seeds', type=int, default=2)
    a.add_argument('--workers', type=int, default=2)
    a.add_argument('--scale', default='quick')
    a.add_argument('--repeats', type=int, default=2)
    a = a.parse_args()
    from al_repro.runs.paper import protocols
    ps = protocols('dal', 'digits', a.scale)
    for _ in range(a.repeats):
        own, dask = seconds(ps, a.seeds, workers=a.workers), on_dask(ps, a.seeds, a.workers)
        print(f'processes {own:7.1f} s    dask {dask:7.1f} s    ratio {dask/own:.2f}', flush=True)

if __name__ == '__main__': main()
