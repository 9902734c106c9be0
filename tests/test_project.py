"The package, its metadata, the docs' sidebar and the public address"
import importlib.util, json, re, subprocess, sys, zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest, yaml

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location('nb_tool', ROOT/'tools'/'nb.py')
nb = importlib.util.module_from_spec(spec)
spec.loader.exec_module(nb)

def quarto(): return yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))

def seconds_to_import():
    # Of the processor, whatever else the machine does
    code = 'from time import process_time as t; a = t(); import al_repro; print(t() - a)'
    how = dict(cwd=ROOT, capture_output=True, text=True, check=True)
    return float(subprocess.run([sys.executable, '-c', code], **how).stdout)

def test_import_is_light():
    assert min(seconds_to_import() for _ in range(3)) < .3

def test_every_folder_is_a_package():
    folders = {p.parent for p in (ROOT/'al_repro').rglob('*.py')}
    assert {p.name for p in folders} >= {'al_repro', 'data', 'strategies', 'papers', 'dal'}
    assert all((p/'__init__.py').exists() for p in folders)

def test_metadata():
    try: dist = metadata.distribution('al_repro')
    except metadata.PackageNotFoundError: pytest.skip('al_repro is not installed; pip install -e ".[dev]"')
    import al_repro
    assert dist.version == nb.config().version == al_repro.__version__
    assert set(dist.metadata.get_all('Provides-Extra')) == {'dev', 'jupyter', 'keras', 'apricot', 'dask', 'backbone'}
    needed = [o for o in dist.requires if 'extra ==' not in o]
    assert {re.match(r'[\w-]+', o)[0] for o in needed} >= {'numpy', 'torch', 'pandas'}
    assert not any('==' in o or '<' in o for o in needed), 'runtime requirements are lower bounds'

def test_console_script_exists():
    target = nb.config().console_scripts.split('=')[1]
    ep = metadata.EntryPoint('al_repro', target, 'console_scripts')
    assert callable(ep.load())

def test_sidebar_has_the_notebook_folders():
    sections = [o['section'] for o in quarto()['website']['sidebar']['contents'] if 'section' in o]
    contents = [o['contents'] for o in quarto()['website']['sidebar']['contents'] if 'section' in o]
    assert contents == [f'{o}/*.ipynb' for o in sections]
    found = {p.parent.relative_to(ROOT/'nbs').as_posix() for p in nb.notebooks()} - {'.'}
    assert found == set(sections)
    modules = {p.parent.relative_to(ROOT/'al_repro').as_posix() for p in (ROOT/'al_repro').rglob('[a-z]*.py')} - {'.'}
    assert modules == found - {'tutorials', 'papers'}

def test_pages_have_different_names():
    pages = [(p.parent, re.sub(r'^\d+[a-z]*_', '', p.name)) for p in nb.notebooks()]
    assert len(set(pages)) == len(pages)

def test_quarto_settings_agree():
    cfg, site = nb.config(), quarto()['website']
    slug, docs, branch = nb.address()
    assert (site['title'], site['description'], site['repo-branch']) == (cfg.title, cfg.description, branch)
    assert (site['site-url'], site['repo-url']) == (docs, f'https://github.com/{slug}')
    assert (ROOT/'nbs'/'_quarto.yml').resolve() == (ROOT/'_quarto.yml').resolve()

def test_verdicts_are_styled_on_the_site_as_in_the_report():
    from al_repro.show.page import CSS
    from al_repro.show.verdict_table import SHARED, verdict_badge
    assert SHARED in CSS
    styles = (ROOT/'nbs'/'styles.css').read_text(encoding='utf-8')
    assert SHARED.strip() in styles, 'copy SHARED of show/07_verdict_table.ipynb into nbs/styles.css'
    verdicts = 'reproduced', 'not reproduced', 'undecided', 'not run'
    kinds = {re.search(r'badge (\w+)', verdict_badge(v))[1] for v in verdicts}
    for k in kinds: # Bootstrap's .badge is white on nothing
        assert re.search(rf'\.badge\.{k} {{ color: #\w+; background: #\w+; }}', SHARED)

def test_links_agree(): assert nb.link_problems() == []

def test_readme_is_made_from_the_index(): assert nb.readme() == (ROOT/'README.md').read_text(encoding='utf-8')

def test_a_new_address_reaches_every_form():
    old = ('[b](https://colab.research.google.com/github/a/x/blob/main/nbs/core/1.ipynb) git+https://github.com/a/x" '
           'https://github.com/a/x.git https://github.com/a/x. '
           'https://github.com/a/xyz https://a.github.io/x/core.html')
    new = nb.rewrite(old, 'b/y', 'https://b.github.io/y', 'dev', {'a/x'}, {'https://a.github.io/x'}, 'nbs/core/2.ipynb')
    assert new == ('[b](https://colab.research.google.com/github/b/y/blob/dev/nbs/core/2.ipynb) '
                   'git+https://github.com/b/y" https://github.com/b/y.git https://github.com/b/y. '
                   'https://github.com/a/xyz https://b.github.io/y/core.html')

@pytest.mark.parametrize('src, shows', [
    ('print(1)', True), ('for i in range(2): print(i)', True), ('x', True), ('x.shape, 2', True),
    ('fig, ax = plt.subplots()', True), ('def f(): print(1)', False), ('if bad: print(1)', False),
    ('x = 1', False), ('x;', False), ('f(x)', False), ('test_eq(a, b)', False),
    ('try: f()\nexcept ValueError as e: print(e)', False), ('!pip list', False),
    ('fig = plt.figure(); plt.close(fig)', False)])
def test_what_surely_shows(src, shows): assert nb.must_show(src) is shows


# ---------------------------------------------------------------- what the docs execute

def cell(*lines): # as nbdev gives it to `tools/nb.py`
    from execnb.nbio import mk_cell
    from nbdev.process import NBProcessor, extract_directives
    c = mk_cell('\n'.join(lines))
    c.directives_ = extract_directives(c)
    return c

@pytest.mark.parametrize('lines', [
    ['import math', 'print(math.pi)'],
    ['from math import pi', 'def f(): return pi'],
    ['#| hide', 'import shutil; shutil.rmtree(tmp)'],
    ['#| export', 'import math', 'half = math.pi/2'],
    ['try: import keras', 'except ImportError: pass'],
    ['def f():', '    import math', '    return math.pi', 'f()'],
    ['#| slow', 'import math'],
    ['#| cuda', 'def f():', '    import math'],
])
def test_a_cell_that_the_docs_cannot_execute_alone_is_refused(lines):
    assert nb.import_problem(cell(*lines))

@pytest.mark.parametrize('lines', [
    ['import math', 'from math import pi'],
    ['print(math.pi)'],
    ['def f():', '    import math', '    return math.pi'],
    ['#| export', 'def f():', '    import math', '    return math.pi', 'half = f()/2'],
    ['#| eval: false', 'import math', 'print(math.pi)'],
    ['!pip install -q al_repro'],
])
def test_a_cell_that_the_docs_can_execute_alone_is_accepted(lines):
    assert nb.import_problem(cell(*lines)) is None

@pytest.mark.filterwarnings('ignore:Found cells containing imports')
def test_the_docs_stop_where_the_check_says():
    "nbdev executes the refused cell, without the cell before it"
    from execnb.nbio import dict2nb
    from nbdev.processors import FilterDefaults
    def make_page(*sources):
        cells = [dict(cell_type='code', metadata={}, outputs=[], source=o) for o in sources]
        FilterDefaults()(dict2nb(dict(cells=cells, metadata={})))
    start = '#| default_exp x', '#| export\ndef f(): return 1', 'n = f()'
    make_page(*start, 'import math', 'print(n)')
    with pytest.raises(Exception, match='Error.* in cell'): make_page(*start, 'import math\nprint(n)')

def test_links_of_the_pages_are_followed(tmp_path):
    def page(name, *cells):
        cells = [dict(cell_type='markdown', metadata={}, source=[o]) for o in cells]
        (tmp_path/f'{name}.ipynb').write_text(json.dumps(dict(cells=cells)))
    good = '#one-part', 'b.ipynb#f', 'https://s/x.html#f', 'https://elsewhere.org/x.html'
    bad = 'c.ipynb', 'b.ipynb#other', 'https://s/d.html', '#two'
    page('a', '## One part', *[f'[here]({o})' for o in good + bad])
    page('b', '---\noutput-file: x.html\n---', '## Other {#f}\n')
    found = [re.search(r'leads to (\S+),', o)[1] for o in nb.docs.link_problems(tmp_path, 'https://s')]
    assert found == [*bad]


# ---------------------------------------------------------------- alone, as on Colab

@pytest.mark.parametrize('lines, wrong', [
    (['#| slow', 'run(ps)'], True),
    (['#| slow', 'if RUN_SLOW: run(ps)', 'show(ps)'], True),
    (['#| cuda', 'if RUN_SLOW: x.cuda()'], True),
    (['#| slow', 'if RUN_SLOW: run(ps)'], False),
    (['#| hide', '#| cuda', 'if torch.cuda.is_available():', '    x.cuda()'], False),
    (['run(ps)'], False)])
def test_marked_cells_wait_for_the_switch(lines, wrong): assert bool(nb.marked_problem(cell(*lines))) is wrong

@pytest.mark.parametrize('source, wrong', [
    ('#| eval: false\n!al_repro study pools --out ../../results', True), ('#| hide\n#| eval: false\nrun(ps)', True),
    ('run(ps)', False), (nb.colab.install('a/b', 'nbs/data/x.ipynb'), False),
    (nb.colab.LAST, False), (nb.colab.DRIVE, False)])
def test_what_is_not_evaluated_here_would_run_on_colab(source, wrong):
    assert bool(nb.unrun_problem(SimpleNamespace(source=source))) is wrong

def opening(install, *more, badge=None, last=nb.colab.LAST):
    "Cells of a notebook nbs/data/x.ipynb"
    slug, _, branch = nb.address()
    badge = badge or nb.colab.badge(slug, branch, 'nbs/data/x.ipynb')
    md = lambda s: SimpleNamespace(cell_type='markdown', source=s)
    code = [SimpleNamespace(cell_type='code', source=o) for o in (install, *more, last)]
    return [SimpleNamespace(cell_type='code', source='#| default_exp data.x'), md('# X'), md(badge), *code]

def test_what_stands_at_the_top_and_at_the_end():
    slug, path, test = nb.address()[0], 'nbs/data/x.ipynb', 'from fastcore.test import test_eq'
    plain, tests, keras, dev = (nb.colab.install(slug, path, *o) for o in ([], ['', True], ['keras'], ['dev']))
    def wrong(*cells, marks=(), **kw):
        return len(nb.opening_problems(ROOT/path, opening(*cells, **kw), {*marks, 'default_exp'}))
    good = wrong(plain), wrong(tests, test), wrong(keras), wrong(plain, nb.colab.SWITCH, marks=['slow'])
    assert good == (0, 0, 0, 0)
    ends = wrong(plain, last='import nbdev; nbdev.nbdev_export()'), wrong(plain, badge='[![x](y)](z)')
    assert ends == (1, 1)
    bad = wrong(dev), wrong(plain, test), wrong('!pip install al_repro'), wrong(plain, marks=['slow'])
    assert bad == (1, 1, 1, 1)

def test_runs_that_take_long_can_be_kept_on_drive():
    slug, path, drive, switch = nb.address()[0], 'nbs/data/x.ipynb', nb.colab.DRIVE, nb.colab.SWITCH
    plain, clone = (nb.colab.install(slug, path, clone=o) for o in (False, True))
    wrong = lambda *cells: nb.opening_problems(ROOT/path, opening(*cells), {'slow'})
    assert wrong(drive, clone, switch) == wrong(drive, plain, switch) == wrong(plain, switch) == []
    forgotten, drifted = wrong(clone, switch), wrong(drive.replace('Google Drive', 'a disk'), clone, switch)
    assert [len(o) for o in (forgotten, drifted)] == [1, 1] and drive in forgotten[0] and drive in drifted[0]

def run_alone(folder, *code):
    "What `tools/nb.py colab` does with a notebook of these cells, where the package holds one number"
    (folder/'clone'/'nbs'/'data').mkdir(parents=True, exist_ok=True)
    (folder/'clone'/'settings.ini').touch()
    with zipfile.ZipFile(folder/'x.whl', 'w') as z: z.writestr('al_repro/__init__.py', 'number = 7')
    cells = [dict(cell_type='code', source=o) for o in code]
    (folder/'x.ipynb').write_text(json.dumps(dict(cells=cells)))
    return nb.colab.colab(folder/'x.ipynb', folder/'x.whl', folder/'clone', ['nbdev', 'keras'])

@pytest.mark.parametrize('clone', [False, True])
def test_a_notebook_runs_alone(tmp_path, clone):
    install = nb.colab.install('a/b', 'nbs/data/x.ipynb', clone=clone)
    where = 'import os; assert os.getcwd().count("al_repro_clone") == ' + str(int(clone))
    used = 'import al_repro', 'assert al_repro.number == 7'
    assert run_alone(tmp_path, install, *used, where, nb.colab.SWITCH, 'if RUN_SLOW: 1/0', nb.colab.LAST) is None

def test_what_lies_on_drive_outlives_the_machine(tmp_path):
    "Two machines one after the other: the second finds the clone, its records, and both folders of the environment"
    mount = ('import sys, types; object = types.SimpleNamespace', 'new = dict(parents=True, exist_ok=True)',
             'drive = object(mount=lambda at: Path(at, "MyDrive").mkdir(**new))',
             'sys.modules["google.colab"] = object(drive=drive)')
    drive = nb.colab.DRIVE.replace('DRIVE = False', 'DRIVE = True').replace('/content', str(tmp_path))
    install, out = nb.colab.install('a/b', 'nbs/data/x.ipynb', clone=True), 'out = Path("../../results/record.json")'
    alone = lambda *cells: run_alone(tmp_path, 'from pathlib import Path', *mount, drive, install, out, *cells)
    where = f'import os; assert os.environ["AL_REPRO_{{}}"].startswith("{tmp_path}/drive/MyDrive")'
    first = where.format('ASSETS'), where.format('DATA'), 'assert not out.exists()', 'out.parent.mkdir(); out.touch()'
    assert alone(*first) is None
    assert alone('assert out.exists()') is None
    assert (tmp_path/'drive'/'MyDrive'/'al_repro_clone'/'results'/'record.json').exists()

@pytest.mark.parametrize('code, error', [
    ('import nbdev; nbdev.nbdev_export()', 'ModuleNotFoundError'), ('open("../../settings.ini")', 'FileNotFoundError'),
    ('1/0', 'ZeroDivisionError'), ('import keras', 'ModuleNotFoundError')])
def test_what_only_works_here_fails_alone(tmp_path, code, error):
    log = run_alone(tmp_path, nb.colab.install('a/b', 'nbs/data/x.ipynb'), code)
    assert error in log and f'code cell 1 of {tmp_path/"x.ipynb"} failed' in log

def test_a_clone_is_not_nested(tmp_path):
    "The install cell of before: run twice, it cloned into its clone"
    old = ('!git clone -q --depth 1 https://github.com/a/b al_repro_clone && pip install -q ./al_repro_clone\n'
           '%cd al_repro_clone/nbs/data')
    assert 'code cell 0' in run_alone(tmp_path, old)

@pytest.mark.parametrize('flags, shown', [('', ['kept']), ('slow', ['run'])])
def test_running_slow_cells_turns_the_switch_on(tmp_path, flags, shown):
    out = [dict(output_type='stream', name='stdout', text=['kept'])]
    cells = [dict(cell_type='code', id=f'c{i}', execution_count=None, metadata={}, outputs=o, source=s.splitlines(True))
             for i, (s, o) in enumerate([(nb.colab.SWITCH, []), ("#| slow\nif RUN_SLOW: print('run')", out)])]
    path = tmp_path/'x.ipynb'
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    cmd = [sys.executable, ROOT/'tools'/'nb.py', 'run', path, '--flags', flags]
    subprocess.run(cmd, check=True, capture_output=True)
    cells = json.loads(path.read_text())['cells']
    assert [''.join(o['text']).strip() for o in cells[1]['outputs']] == shown
    assert ''.join(cells[0]['source']) == nb.colab.SWITCH



# ---------------------------------------------------------------- where it runs

def test_tests_end_without_ipython(monkeypatch):
    import conftest
    for name in 'IPython', 'IPython.core', 'IPython.core.displayhook': monkeypatch.setitem(sys.modules, name, None)
    conftest.pytest_unconfigure()

def test_tests_run_side_by_side():
    "As the README says, with what the extra `dev` brings"
    import conftest
    assert '-m pytest -n 2\n' in (ROOT/'README.md').read_text(encoding='utf-8')
    assert any(o.startswith('pytest-xdist') for o in nb.config().dev_requirements.split())
    a, b = 'tests/test_resume.py::test_disk_full[open]', 'tests/test_notebooks.py::test_notebook[core/01_pool.ipynb]'
    assert (conftest.part_of(a), conftest.part_of(b)) == ('tests/test_resume.py', b)

def test_lower_bounds_are_tested():
    "The workflow installs what settings.ini allows at least"
    bounds = nb.config().requirements.split()
    assert {'numpy>=2.0', 'torch>=2.4', 'torchvision>=0.19'} <= set(bounds)
    flow = yaml.safe_load((ROOT/'.github'/'workflows'/'versions.yaml').read_text())
    matrix = flow['jobs']['versions']['strategy']['matrix']
    assert matrix['python'] == ['3.10', '3.11', '3.12', '3.13']
    assert {'python': '3.10', 'libraries': 'lowest'} in matrix['include']
    command = next(s['run'] for s in flow['jobs']['versions']['steps'] if s.get('if'))
    said = re.search(r"sed -E '(.*?)'", command)[1]
    how = dict(input=' '.join(bounds), capture_output=True, text=True, check=True)
    pinned = subprocess.run(['sed', '-E', said], **how).stdout.split()
    assert 'torch==2.4.*' in pinned and 'pandas==2.2.*' in pinned and not [p for p in pinned if '>' in p]
