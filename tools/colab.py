"""The cells that let a notebook run alone on Colab, and a run of it as there: every cell, in an empty folder

Nothing is downloaded. The environment is this one; the package comes from a wheel, which the notebook's own install
cell unpacks: `pip` and `git` are stand-ins, and what that cell does not install cannot be imported.
"""
import importlib.util, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLONE = 'al_repro_clone'
EXTRAS = 'keras', 'apricot', 'backbone' # that a notebook may install; `dev` would move Colab's own packages


# ---------------------------------------------------------------- the cells

SWITCH = '''#| hide
RUN_SLOW = False # True runs the marked cells as well: minutes to hours, some on data to be downloaded'''

DRIVE = '''#| hide
#| eval: false
DRIVE = False # True keeps data, assets and records on Google Drive; Colab forgets everything else when it ends
if DRIVE:
    from google.colab import drive
    drive.mount('/content/drive')
    %cd -q /content/drive/MyDrive
    %env AL_REPRO_ASSETS=/content/drive/MyDrive/al_repro/assets
    %env AL_REPRO_DATA=/content/drive/MyDrive/al_repro/data'''

LAST = '''#| hide
#| eval: false
from importlib.util import find_spec
if find_spec('nbdev'):
    import nbdev
    if nbdev.config.is_nbdev(): nbdev.nbdev_export()'''

def badge(slug, branch, path):
    "The badge that opens the notebook at `path` on Colab"
    return (f'<a href="https://colab.research.google.com/github/{slug}/blob/{branch}/{path}">'
            '<img src="https://colab.research.google.com/assets/colab-badge.svg" alt="Open in Colab"></a>')

def install(slug, path, extra='', fastcore=False, clone=False):
    "The install cell of the notebook at `path`, which needs an extra, fastcore's tests, or the files of a clone"
    extra, tests = f'[{extra}]' if extra else '', 'fastcore ' if fastcore else ''
    if not clone: return f'''#| hide
#| eval: false
from importlib.util import find_spec
if not find_spec('al_repro'):
    !pip install -q {tests}"al_repro{extra} @ git+https://github.com/{slug}"'''
    folder = Path(path).parent
    return f'''#| hide
#| eval: false
from pathlib import Path
if not Path('{"../"*len(folder.parts)}settings.ini').exists():
    !test -d {CLONE} || git clone -q --depth 1 https://github.com/{slug} {CLONE}
    !pip install -q {tests}"./{CLONE}{extra}"
    %cd -q {CLONE}/{folder}'''

def kind_of(source):
    "(extra, is it a clone) of an install cell; None for any other cell"
    m = re.search(rf'!pip install -q (?:fastcore )?"(al_repro|\./{CLONE})(?:\[([\w,]+)\])?', source)
    return m and (m[2] or '', m[1] != 'al_repro')


# ---------------------------------------------------------------- the run

def build_wheel(folder):
    "A wheel of this checkout, made in `folder` from a copy of it"
    from docs import files
    for p in files(ROOT):
        if p.parts[0] not in ('nbs', 'results', 'tests', 'benchmarks'): copy(p, folder/'source')
    cmd = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', folder/'wheel', folder/'source']
    subprocess.run(cmd, check=True)
    return next((folder/'wheel').glob('*.whl'))

def copy(path, folder):
    "Copy one file of the project, by its path in it, to the same place in `folder`"
    (folder/path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT/path, folder/path, follow_symlinks=False)

def shim(path, *lines):
    "An executable shell script"
    path.write_text('\n'.join(['#!/bin/sh', *lines, '']), encoding='utf-8')
    path.chmod(0o755)

def hidden(cells, dev):
    "Modules that the notebook's install cell does not bring, of the packages `dev`"
    text = next((o for o in cells if kind_of(o)), '')
    named = re.findall(r'keras|apricot|fastcore', text)
    modules = {o.replace('apricot-select', 'apricot').replace('-', '_') for o in dev}
    return sorted(modules - set(named))

def colab(path, wheel, clone, dev):
    "Execute every cell of the notebook at `path` in an empty folder; its log if a cell fails, else None"
    cmd = [sys.executable, __file__, path, *hidden(sources(path), dev)]
    with tempfile.TemporaryDirectory() as d:
        d = Path(d).resolve()
        for o in 'bin', 'site', 'cache', 'content': (d/o).mkdir()
        shim(d/'bin'/'pip', f'exec "{sys.executable}" -m zipfile -e "{wheel}" "{d/"site"}"')
        shim(d/'bin'/'git', 'for last; do :; done', f'exec cp -R "{clone}" "$last"')
        res = subprocess.run(cmd, cwd=d/'content', env=surroundings(d), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    return res.stdout[-6000:] if res.returncode else None

def surroundings(folder):
    "The environment variables of such a run: its own package, programs and cache, none of the project's settings"
    kept = {k: v for k, v in os.environ.items() if not k.startswith('AL_REPRO_') and k not in ('IN_TEST', 'PYTHONHOME')}
    return kept | dict(PYTHONPATH=str(folder/'site'), XDG_CACHE_HOME=str(folder/'cache'), MPLBACKEND='agg',
                       MPLCONFIGDIR=fonts(), PATH=f'{folder/"bin"}{os.pathsep}{os.environ["PATH"]}')

def fonts():
    "Where matplotlib keeps its list of fonts, which takes long to make"
    import matplotlib
    return matplotlib.get_cachedir()

def sources(path):
    "The code cells of a notebook, in order"
    cells = json.loads(Path(path).read_text(encoding='utf-8'))['cells']
    return [''.join(c['source']) for c in cells if c['cell_type'] == 'code']

def forget(names):
    "Make this process one in which neither the checkout nor the packages `names` are installed"
    sys.path[:] = [''] + [o for o in sys.path[1:] if Path(o).resolve() not in (ROOT, ROOT/'tools')]
    sys.meta_path[:] = [o for o in sys.meta_path if '__editable__' not in getattr(o, '__module__', '')]
    sys.modules.update(dict.fromkeys(names))
    if importlib.util.find_spec('al_repro'): raise RuntimeError('al_repro can be imported before it is installed')

def run_cells(path):
    "Execute all code cells here and now, install cells twice; the number of the first that fails, else None"
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    for i, src in enumerate(sources(path)):
        if not shell.run_cell(src).success: return i
        if not re.search(r'(?m)^\s*!.*\bpip install\b', src): continue
        here = os.getcwd()
        if not shell.run_cell(src).success or os.getcwd() != here: return i

if __name__ == '__main__':
    path, *names = sys.argv[1:]
    forget(names)
    i = run_cells(path)
    if i is not None: sys.exit(f'{"-"*70}\ncode cell {i} of {path} failed:\n{sources(path)[i]}')
