"A strategy, a data set and a paper from another package are listed, run and judged, with no edit in this one"
import os, subprocess, sys
from pathlib import Path
import pytest

PACKAGE = {
'toys.py': '''
"All that another package has to bring"
import numpy as np, torch
import al_repro
from al_repro import Claim, Dataset, Experiment, Paper, Part, Protocol, Recipe, Scope, Setting, Spec, Study

@al_repro.strategy('every_other', needs=('probs',))
def every_other(query, k, first=0):
    "Label every other row, from the surest on."
    order = np.lexsort((query.ties, -query.probs.max(1)))
    return query.unlabelled[np.concatenate([order[first::2], order[:first], order[first + 1::2]])[:k]]

@al_repro.dataset('two-squares', '80 + 20 grey 4x4 images, dark or light')
def two_squares(root, size):
    rng = np.random.default_rng(0)
    def images(n):
        y = np.arange(n) % 2
        x = (60 + 120*y[:,None,None,None] + rng.normal(0, 60, (n, 1, 4, 4))).clip(0, 255).astype(np.uint8)
        return torch.from_numpy(x), torch.from_numpy(y)
    return Dataset('two-squares', *images(80), *images(20), ('dark', 'light'))

def make(data, scale, n=None):
    recipe = Recipe('mlp', steps=20, holdout=0., checkpoint='last')
    return [Protocol('toy', data, scale, 4, 4, 2, recipe, strategies=(Spec('random'), Spec('every_other')), seeds=5)]

def columns(p): return [Setting('query', '4', '-', f'{p.query}')]
def distance(seed): return {'zero': 0., 'noise': float(np.random.default_rng(seed).normal())}
def counting(records): return [r for r in records if r['protocol']['name'] == 'toy']
def at_home(): return tuple(make('two-squares', 'quick'))

CLAIMS = (
    Claim('toy-1', 'Nobody 1999', 'every other row is no better than random',
          (Part('every_other', 'random', kind='no better'),), scope=Scope(('two-squares',)),
          protocol='toy', needs='toy', since='2026-11-29'),
    Claim('toy-2', 'Nobody 1999', 'nothing is nothing', (Part('zero', 0., kind='equivalence', margin=.1),),
          study='nothing', scope=Scope(('synthetic',)), since='2026-11-29'))
EXPERIMENT = Experiment('toy', make, columns, 'A toy', shown=(('two-squares', 'quick'),))
STUDY = Study('nothing', 'toys:distance', 'how far nothing is from nothing', seeds=5)
al_repro.register(Paper('toy', 'Toy', 1999, 'Nobody (1999), Nothing', (EXPERIMENT,), CLAIMS, (STUDY,),
                        counting, tested=at_home))
''',
'toys-1.0.dist-info/METADATA': 'Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n',
'toys-1.0.dist-info/entry_points.txt': '[al_repro]\nmine = toys\n'}

@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A folder with an installed package"
    home = tmp_path_factory.mktemp('toys')
    for name, text in PACKAGE.items():
        (home/name).parent.mkdir(exist_ok=True)
        (home/name).write_text(text.lstrip())
    return home

def said(home, *code, module='al_repro.cli.main'):
    "What a fresh process prints that has the package on its path"
    root = Path(__file__).resolve().parent.parent
    path = os.pathsep.join(filter(None, [str(home), str(root), os.environ.get('PYTHONPATH')]))
    cmd = [sys.executable, '-m', module, *code] if module else [sys.executable, '-c', *code]
    res = subprocess.run(cmd, cwd=home, env=os.environ | dict(PYTHONPATH=path), capture_output=True, text=True)
    assert res.returncode == 0, res.stdout + res.stderr
    return res.stdout

def test_they_are_listed(home):
    out = said(home, 'list')
    lines = 'every_other', 'first=0', '80 + 20 grey', 'al_repro reproduce toy', 'how far nothing is', 'Nobody (1999)'
    for line in lines: assert line in out, line

def test_the_strategy_keeps_the_contract(home):
    said(home, "import al_repro; al_repro.check_strategy(al_repro.build('every_other(first=1)'))", module=None)

def test_they_are_run_and_judged(home):
    "By two worker processes, which find them as well"
    out = said(home, *'reproduce toy --data two-squares --workers 2 --quiet --out runs'.split())
    assert 'toy-1' in out and 'every_other vs random' in out, out
    assert len(list((home/'runs'/'toy-two-squares-quick').glob('*.json'))) == 10
    study = "from al_repro.cli.main import main; assert not main('study nothing --quiet --out runs'.split())"
    judge = "import al_repro; v = al_repro.all_verdicts('runs')['Toy']; print(*v.claim + ' ' + v.verdict, sep='\\n')"
    out, _, verdicts = said(home, f"{study}; print('JUDGED'); {judge}", module=None).partition('JUDGED\n')
    assert 'zero' in out and 'noise' in out
    verdicts = verdicts.splitlines()
    assert {v.split()[0] for v in verdicts} == {'toy-1', 'toy-2'}
    assert 'toy-2 holds' in verdicts and 'toy-1 not run' not in verdicts
    assert 'A toy on two-squares' in (home/'runs'/'report.html').read_text()

def test_a_package_that_cannot_be_imported(home, tmp_path):
    for name, text in PACKAGE.items():
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_text(text if name != 'toys.py' else 'import nothing_of_that_name')
    code = "import al_repro\ntry: al_repro.known()\nexcept ImportError as e: print(e)"
    out = said(tmp_path, code, module=None)
    why = "(ModuleNotFoundError: No module named 'nothing_of_that_name')"
    assert f'entry point mine = toys of toys cannot be imported {why}' in out
    assert 'mend that package, or uninstall it' in out
