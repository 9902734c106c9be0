"""What a strategy takes beyond the arrays it is given: 2 GB at most for 200,000 rows of 128 numbers and k = 1000.

Checked here on few rows and many picks, with what may be held at once cut down to a thirtieth. For the full size
`python tests/test_memory.py 200000 1000 128` prints the rise of the resident memory, one strategy after the other.
"""
import ctypes, gc, os, subprocess, sys, time, tracemalloc
from pathlib import Path
import numpy as np, pytest

OPTIONS = dict(
    bal='cycles=3', batchbald='configurations=100', dal='max_epochs=2, mini_queries=2', vaal='epochs=1, width=64',
    pal='model=mlp, epochs=1, min_steps=2', activeft='steps=2', dfal='iterations=1',
    robust_coreset='subsample=1000, time_limit=1', cluster_margin='hac_rows=2000')
MORE = ['submodular(similarity=distance)', 'clustered(picks=nearest)', 'fass(f=nearest)',
        'activeft(steps=2, form=separate)', 'bal(sampler=kmeans, cycles=3, beta=2)']

# In the check here, k over this: BatchBALD's table is full after two picks, 10² configurations, and no later pick
# holds more than those, but takes its time
FEWER = {'batchbald(configurations=100)': 9}

def specs():
    from al_repro.query.spec import known
    return [f'{s}({OPTIONS[s]})' if s in OPTIONS else s for s in known()] + MORE

def arrays(n, d, c=10, seed=0):
    "Arrays of every kind, and a model: what any strategy may need"
    import torch
    from al_repro.models.nets import Member, init_weights, mlp
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    normal = lambda m: rng.standard_normal((m, d), dtype=np.float32)
    rows = lambda: normal(n) + 2*normal(c)[y]
    mc = rng.random((n, 10, c), dtype=np.float32)
    mc /= mc.sum(-1, keepdims=True)
    labelled = rng.permutation(n)[:n//3]
    model = Member(init_weights(mlp((1, 12, 12), c), [torch.Generator().manual_seed(0)])).eval()
    return dict(
        probs=mc.mean(1), mc=mc, embeds=rows(), features=rows(), losses=rng.random(n),
        x=rng.integers(0, 255, (n, 1, 12, 12)).astype(np.uint8),
        labelled=labelled, labels=y[labelled], model=model)

def resident(peak=False): # bytes now, or the most since `forget`
    line = next(l for l in open('/proc/self/status') if l.startswith('VmHWM' if peak else 'VmRSS'))
    return 1024*int(line.split()[1])

def forget(): Path('/proc/self/clear_refs').write_text('5')

def give_back():
    "Let freed memory go back to the system at once, so that the resident memory is what is held"
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 2**16) # M_MMAP_THRESHOLD
    libc.mallopt(-1, 2**16) # M_TRIM_THRESHOLD

def rises(n, k, d, fewer={}): # (name, bytes, seconds) of each strategy, of everything that is not numpy's too
    import torch
    from al_repro.query.query import Query
    from al_repro.query.spec import build
    torch.set_num_threads(1)
    give_back()
    small, a = arrays(200, d), arrays(n, d)
    for spec in specs(): build(spec)(Query.from_arrays(**small), 20) # what is imported or compiled stays
    for spec in specs():
        q, s = Query.from_arrays(**a), build(spec)
        gc.collect()
        forget()
        before, began = resident(), time.perf_counter()
        picks = k//fewer.get(spec, 1)
        assert len(set(s(q, picks))) == picks
        yield spec, resident(peak=True) - before, time.perf_counter() - began

def cut_down(share):
    "Hold that share of what may be held at once"
    from al_repro.select import balls, cover, facility, kmeans
    names = ((balls, 'GRAPH_BYTES'), (cover, 'SIMILARITY_BYTES'), (facility, 'KEPT_BYTES'),
             (kmeans, 'DENSE'), (kmeans, 'SPARSE'))
    for module, name in names:
        setattr(module, name, int(share*getattr(module, name)))

def peak_of(f): # bytes
    "The most that numpy holds while `f` runs"
    gc.collect()
    tracemalloc.start()
    try:
        f()
        return tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()

needs_linux = pytest.mark.skipif(not os.access('/proc/self/clear_refs', os.W_OK),
    reason='needs the peak of the resident memory of Linux')

@needs_linux
def test_every_strategy_is_bounded():
    "3,000 unlabelled rows, 900 picks: one table of all pairs would take 72 MB, and there were three of them"
    command = [sys.executable, __file__, '4500', '900', '16', '0.0333']
    place = dict(cwd=Path(__file__).parent.parent, env=os.environ | dict(OMP_NUM_THREADS='1'))
    res = subprocess.run(command, capture_output=True, text=True, **place)
    assert res.returncode == 0, res.stderr
    rise = {spec: float(mb) for mb, spec in (line.split('\t') for line in res.stdout.splitlines())}
    assert len(rise) == len(specs()) and max(rise.values()) < 110, rise

def test_tables_of_pairs(monkeypatch):
    from al_repro.select import cover, kmeans
    from al_repro.strategies import diverse
    monkeypatch.setattr(cover, 'SIMILARITY_BYTES', 2**23)
    rng = np.random.default_rng(0)
    x, mc = rng.standard_normal((12_000, 8), dtype=np.float32), rng.random((12_000, 40, 10), dtype=np.float32)
    some, near = x[:4000], x[:4000] + np.float32(.01)
    assert peak_of(lambda: diverse.disagreement(mc)) < 30e6 # 38 MB in float64
    assert peak_of(lambda: diverse.nearest_rows(x, some)) < 100e6 # 384 MB
    # 288 MB twice
    assert peak_of(lambda: diverse.facility_picks(x[:6000], 3, similarity='distance')) < 60e6
    # 380 MB, and twice that when joined
    assert peak_of(lambda: kmeans.assign_distinct(x, near)) < 60e6

if __name__ == '__main__':
    n, k, d, *share = sys.argv[1:]
    if share: cut_down(float(share[0]))
    for spec, rise, seconds in rises(int(n), int(k), int(d), FEWER if share else {}):
        print(f'{rise/1e6:.0f}\t{spec}', flush=True)
        print(f'{seconds:.1f} s', file=sys.stderr, flush=True)
