"Settings that must stand before torch and matplotlib are imported"
import os

threads = str(min(2, os.cpu_count() or 1))
for name in 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS': os.environ.setdefault(name, threads)
for k,v in dict(OMP_WAIT_POLICY='passive', GOMP_SPINCOUNT='10000').items(): os.environ.setdefault(k, v) # waiting threads that spin slow a busy machine, those that sleep at once an idle one
os.environ['MPLBACKEND'] = 'agg'
os.environ['KERAS_BACKEND'] = 'torch' # else Keras looks for TensorFlow where a test imports it first

def pytest_unconfigure():
    "When the process ends, IPython searches all memory for garbage once for each notebook that was run: minutes"
    try: from IPython.core.displayhook import DisplayHook
    except ImportError: return # nothing to search for it
    DisplayHook.flush = lambda self: None
