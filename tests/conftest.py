"Settings that must stand before torch and matplotlib are imported"
import os

threads = str(min(2, os.cpu_count() or 1))
for name in 'OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS': os.environ.setdefault(name, threads)
os.environ['MPLBACKEND'] = 'agg'
