"Settings that must stand before torch and matplotlib are imported"
import multiprocessing, os, sys
import pytest

THREADS = 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ |= dict.fromkeys(THREADS, '1') # side by side, one thread each
for name in THREADS: os.environ.setdefault(name, str(min(2, os.cpu_count() or 1)))
# Waiting threads that spin slow a busy machine, those that sleep at once an idle one
for k, v in dict(OMP_WAIT_POLICY='passive', GOMP_SPINCOUNT='10000').items(): os.environ.setdefault(k, v)
os.environ['MPLBACKEND'] = 'agg'
os.environ['KERAS_BACKEND'] = 'torch' # else Keras looks for TensorFlow where a test imports it first

@pytest.fixture(autouse=True)
def same_threads():
    "A test that leaves torch with more threads slows all that follow it in the process, so it fails"
    before = torch.get_num_threads() if (torch := sys.modules.get('torch')) else None
    yield
    after = torch.get_num_threads() if torch else None
    if torch: torch.set_num_threads(before)
    assert after == before, f'torch had {before} threads and has {after}'

@pytest.fixture
def narrow(monkeypatch):
    "The project's VGG16 and residual networks with a quarter of their channels: the same operators, sooner"
    from al_repro.models import nets
    real = nets.residual
    def thin(shape, classes, members, widths, *more):
        return real(shape, classes, members, tuple(w//4 for w in widths), *more)
    monkeypatch.setattr(nets, 'VGG16', tuple(tuple(c//4 for c in block) for block in nets.VGG16))
    monkeypatch.setattr(nets, 'residual', thin)

@pytest.fixture
def ready_workers(monkeypatch):
    """Worker processes fork from one that has imported all they need, where else each imports it for seconds.

    Jobs reach them as they reach others; `os.environ` they have from the first test that starts some."""
    from al_repro.runs import local, workers
    if 'forkserver' not in multiprocessing.get_all_start_methods(): return
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['al_repro.runs.local', 'torch._dynamo', 'sklearn.datasets'])
    for module in (local, workers): monkeypatch.setattr(module, 'CONTEXT', context)

@pytest.fixture
def fragile():
    "A registered strategy that works in round 0 only"
    from al_repro.query.strategy import REGISTRY, strategy
    @strategy('fragile', needs=('probs',))
    def fragile(query, k):
        "Works once."
        if query.round: raise ValueError('round 1 is too much')
        return query.unlabelled[:k]
    yield
    del REGISTRY['fragile']

def part_of(test): # its id
    "What a free worker takes, side by side: a notebook, or all of another file, whose tests share fixtures"
    file = test.partition('::')[0]
    return test if file.endswith('test_notebooks.py') else file

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "The scheduler of `-n 2`; a `--dist` that was asked for stays"
    if config.getvalue('dist') != 'load': return None
    from xdist.scheduler import LoadScopeScheduling
    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid): return part_of(nodeid)
    return Scheduler(config, log)

def pytest_unconfigure():
    "When the process ends, IPython searches all memory for garbage once for each notebook that was run: minutes"
    try: from IPython.core.displayhook import DisplayHook
    except ImportError: return # nothing to search for it
    DisplayHook.flush = lambda self: None
