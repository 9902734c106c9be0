"Settings that must stand before torch and matplotlib are imported"
import os
import pytest

THREADS = 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'
if 'PYTEST_XDIST_WORKER' in os.environ: os.environ |= dict.fromkeys(THREADS, '1') # side by side, one thread each
for name in THREADS: os.environ.setdefault(name, str(min(2, os.cpu_count() or 1)))
for k,v in dict(OMP_WAIT_POLICY='passive', GOMP_SPINCOUNT='10000').items(): os.environ.setdefault(k, v) # waiting threads that spin slow a busy machine, those that sleep at once an idle one
os.environ['MPLBACKEND'] = 'agg'
os.environ['KERAS_BACKEND'] = 'torch' # else Keras looks for TensorFlow where a test imports it first

def pytest_configure(config):
    "Side by side (`-n 2`) a free worker takes the next group of tests"
    if getattr(config.option, 'dist', None) == 'load': config.option.dist = 'loadgroup'

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    "Each notebook is a group of its own; other files stay whole, for their tests share fixtures"
    for item in items:
        if item.path.name != 'test_notebooks.py': item.add_marker(pytest.mark.xdist_group(item.path.stem))

def pytest_unconfigure():
    "When the process ends, IPython searches all memory for garbage once for each notebook that was run: minutes"
    try: from IPython.core.displayhook import DisplayHook
    except ImportError: return # nothing to search for it
    DisplayHook.flush = lambda self: None
