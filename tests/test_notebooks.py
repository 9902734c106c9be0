"Every notebook runs from top to bottom, by nbdev's rules: cells marked `slow`, `cuda` or `eval: false` are left out"
import os, sys
from pathlib import Path

import pytest, torch
from nbdev.config import get_config
from nbdev.test import test_nb as run_nb

ROOT = Path(__file__).resolve().parent.parent
NBS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if not any(o[0] in '._' for o in p.relative_to(ROOT).parts))
FLAGS = get_config(path=ROOT).tst_flags.split()

@pytest.fixture
def as_before():
    "Whatever a notebook changes in this process is put back"
    cwd, env, path, main = os.getcwd(), dict(os.environ), list(sys.path), sys.modules['__main__']
    threads = torch.get_num_threads()
    yield
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(threads)
    sys.path[:], sys.modules['__main__'] = path, main
    if 'matplotlib.pyplot' in sys.modules: sys.modules['matplotlib.pyplot'].close('all')

def test_there_are_notebooks():
    assert {p.parent.name for p in NBS} >= {'data', 'strategies', 'runs', 'dal', 'tutorials'}

@pytest.mark.parametrize('path', NBS, ids=lambda p: p.relative_to(ROOT/'nbs').as_posix())
def test_notebook(path, as_before):
    if path.parts[-2:] == ('models', '14_keras.ipynb'):
        pytest.importorskip('keras', reason='Keras is not installed; pip install "al_repro[keras]"')
    ok, seconds = run_nb(path, skip_flags=FLAGS, basepath=ROOT)
    assert ok, f'{path.name} failed; the error stands in the captured stderr'
