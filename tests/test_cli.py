"The console script: runs, resumes and reports; errors are one line and exit code 2"
import csv, errno, io, os, re, subprocess, sys
from dataclasses import replace
from pathlib import Path

import numpy as np, pytest
from PIL import Image
from al_repro.query.query import Query
from al_repro.query.spec import build
from al_repro.cli import main as cli
from al_repro.cli.asked import choose, data_of
from al_repro.runs.lock import OneWriter
from al_repro.runs.records import read_json, same_run, table
from al_repro.runs.runner import run
from al_repro.runs.paper import PAPERS, Paper
from al_repro.runs.study import Study, read_study

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ['reproduce', 'dal', '--scale', 'smoke', '--workers', '1', '--quiet']
FEW = [*SMOKE, '--strategies', 'random,margin']

@pytest.fixture
def al(tmp_path, monkeypatch, capsys):
    "Run a command in an empty folder; the exit code, what it printed, and the error"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('AL_REPRO_DEBUG', raising=False)
    def run(*args):
        code = cli.main([str(a) for a in args])
        return code, *capsys.readouterr()
    return run

def records(folder='al_repro_runs'): return sorted(Path(folder).glob('*/*.json'))
def stamps(folder='al_repro_runs'): return {f: f.stat().st_mtime_ns for f in records(folder)}

def picks_of(path): return [r['picks'] for r in read_json(path)['rounds']]
def python(*args): return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, check=True)

FILES = dict(probs='p.npy', embeds='e.npy', mc='m.npy', labelled='ids.txt', labels='y.txt') # of `arrays`
def flags(**files): return [x for name, f in files.items() for x in (f'--{name}', f)]
def score_of(s, q, ids): return s.score(q)[np.searchsorted(q.unlabelled, ids)]

def refused(result, *says):
    code, out, err = result
    assert code == 2 and err.startswith('al_repro: error: ') and 'Traceback' not in err
    for s in says: assert s in err, (s, err)


# ---- help and list

def test_help_is_light(tmp_path):
    code = (
        "import sys; from al_repro.cli.main import main\ntry: main(['reproduce', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'pandas', 'matplotlib') if m in sys.modules])")
    out = python('-c', code).stdout
    assert 'examples:' in out and '--deadline SECONDS' in out and out.rstrip().endswith('[]')

def test_module_runs():
    res = python('-m', 'al_repro.cli.main', 'list', 'datasets')
    assert res.returncode == 0 and 'folder:PATH' in res.stdout

def test_list(al):
    code, out, _ = al('list')
    assert code == 0
    for s in ('least_confidence', 'mini_queries=20', 'embeds, labelled', 'fashion-mnist', 'dal-q1000-mnist-quick',
              'al_repro reproduce dal --data cifar10 --scale paper'): assert s in out
    assert 'mnist' not in al('list', 'strategies')[1]

@pytest.mark.parametrize('args', [
    ['list', 'stuff'], ['reproduce'], ['reproduce', 'dal', '--seeds', '0'], ['reproduce', 'dal', '--deadline', '-1'],
    ['reproduce', 'dal', '--seed', '3'], ['reproduce', 'dal', '--seeds', '5:5'], ['study', 'density', '--seeds', '3:'],
    ['select', '--strategy', 'margin', '--k', 'x'], []])
def test_arguments(al, args):
    with pytest.raises(SystemExit) as e: al(*args)
    assert e.value.code == 2


# ---- reproduce and report

def test_smoke_from_end_to_end(al):
    code, out, err = al(*SMOKE)
    assert code == 0 and err == ''
    assert len(records()) == 22 and all(read_json(f)['done'] for f in records())
    for s in ('11 strategies x 2 seeds = 22 runs, 0 finished', 'AULC',
              'dal-1, digits smoke dal-q5: BEYOND THE SOURCE: DESCRIPTION ONLY',
              'to repeat: al_repro reproduce dal --scale smoke --workers 1'): assert s in out
    figures = {f.name for f in Path('al_repro_runs/figures').iterdir()}
    kinds = 'curves', 'gap', 'classes', 'entropy', 'seconds'
    assert {f'dal-q5-digits-smoke-{k}.{e}' for k in kinds for e in ('png', 'svg')} <= figures
    page = Path('al_repro_runs/report.html').read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == [] and 'http' not in re.sub(r'http-equiv', '', page)
    for s in ('description only', 'every method but EGL', 'DAL: mini-queries',
              'al_repro reproduce dal --data digits --scale smoke', 'fingerprint'): assert s in page
    assert os.getcwd() not in page

    before, figs = stamps(), Path('al_repro_runs/figures/dal-q5-digits-smoke-curves.svg').read_bytes()
    code, out, _ = al(*SMOKE)                                       # nothing new
    assert code == 0 and '22 finished' in out and '0 rounds to do' in out and stamps() == before
    assert Path('al_repro_runs/figures/dal-q5-digits-smoke-curves.svg').read_bytes() == figs

    bad = records()[0]
    whole = read_json(bad)
    bad.write_text(bad.read_text()[:500])                           # cut short: listed, then set aside and repeated
    code, out, _ = al('report', 'al_repro_runs', '--out', 'page')
    assert code == 0 and f'damaged (set aside when its run is repeated):\n  {bad}' in out
    assert Path('page/report.html').exists()
    code, out, _ = al(*SMOKE)
    assert code == 0 and '21 finished' in out and Path(f'{bad}.damaged').exists()
    assert [r['picks'] for r in read_json(bad)['rounds']] == [r['picks'] for r in whole['rounds']]
    assert {f: t for f,t in stamps().items() if f != bad} == {f: t for f,t in before.items() if f != bad}

def test_report_needs_no_data(al, monkeypatch):
    al(*FEW, '--out', 'runs')
    def absent(*args): raise FileNotFoundError('no digits here')
    monkeypatch.setattr('al_repro.show.summary.load', absent)
    code, out, _ = al('report', next(Path('runs').glob('dal*')), '--out', 'page')
    assert code == 0 and 'classes of the picks on digits are not drawn: no digits here' in out
    assert not list(Path('page').rglob('*classes*')) and list(Path('page').rglob('*curves.png'))

def test_dry_run_writes_nothing(al):
    code, out, _ = al(*FEW, '--dry-run')
    assert code == 0 and 'in all: 4 runs' in out and 'hours' in out and list(Path().iterdir()) == []

def test_dry_run_counts_the_workers_of_an_executor(al):
    "Not the cores of this machine; threads do one step at a time"
    code, out, _ = al(*FEW, '--dry-run', '--executor', 'threads')
    assert code == 0 and 'executor threads: the hours are for 1 at a time' in out and list(Path().iterdir()) == []

def test_a_folder_at_which_another_command_is_at_work(al):
    Path('runs').mkdir()
    with OneWriter('runs') as other:
        other.take()
        refused(al(*FEW, '--out', 'runs'), f'runs is being written by process {os.getpid()} on', 'choose another --out')
        refused(al('study', 'rankings', '--data', 'digits', '--scale', 'smoke', '--seeds', '1', '--out', 'runs'),
                'runs is being written by')
    assert not any(Path('runs').iterdir())
    assert al(*FEW, '--out', 'runs')[0] == 0 and not list(Path('runs').glob('.*'))
    with OneWriter('runs') as other: # readers, and a command with nothing left to do, go on
        other.take()
        assert al('report', 'runs', '--out', 'page')[0] == 0 and al(*FEW, '--out', 'runs')[0] == 0

def test_deadline_then_the_rest(al):
    code, out, _ = al(*FEW, '--deadline', '0.01')
    assert code == 3 and len(records()) < 4
    assert 'The deadline came first: 11 of 12 rounds are missing' in out
    assert 'unfinished' in out and '--deadline 0.01' in out
    code, out, _ = al(*FEW)
    assert code == 0 and len(records()) == 4
    al(*FEW, '--out', 'straight')
    for a,b in zip(records(), records('straight')): assert picks_of(a) == picks_of(b)

def test_workers(al):
    code, out, _ = al('reproduce', 'dal-q5', '--scale', 'smoke', '--strategies', 'random', '--workers', '2', '--quiet')
    assert code == 0 and 'with 2 workers' in out and len(records()) == 2

def test_seeds_in_parts_then_merged(al):
    for seeds in ('0:1', '1:2'):
        code, out, _ = al(*FEW, '--seeds', seeds, '--out', f'part{seeds[0]}', '--executor', 'threads')
        assert code == 0 and '2 strategies x 1 seeds = 2 runs' in out and 'on executor threads' in out
        assert f'--seeds {seeds} --workers 1 --executor threads --out part{seeds[0]}' in out.splitlines()[-1]
    assert al('merge', 'part0', 'part1', '--out', 'all') == (0, '4 records in all\n', '')
    al(*FEW, '--out', 'whole')
    for a, b in zip(records('all'), records('whole'), strict=True): assert same_run(read_json(a), read_json(b))
    f = records('part1')[0]
    f.write_text(f.read_text().replace('"test_accuracy":0.', '"test_accuracy":0.9', 1))
    refused(al('merge', 'part1', 'whole', '--out', 'none'), 'the same run with different content', f.name)
    assert not Path('none').exists()

def test_strategies_with_options(al):
    code, out, _ = al(*SMOKE, '--seeds', '1', '--strategies', 'random, dal(mini_queries=1,max_epochs=2), dal')
    assert code == 0 and 'strategies: random, dal(max_epochs=2, mini_queries=1), dal(' in out
    assert set(table('al_repro_runs').strategy) > {'random', 'dal(max_epochs=2, mini_queries=1)'}
    assert len(records()) == 3
    assert re.search(r"--strategies 'random, dal\(mini_queries=1,max_epochs=2\), dal' --seeds 1", out)

def test_own_images(al, tmp_path):
    for c, bright in (('dark', 40), ('light', 200)):
        (tmp_path/'photos'/c).mkdir(parents=True)
        for i in range(30):
            a = np.random.default_rng(i).integers(0, 50, (12 + i%3, 14, 3)) + bright
            Image.fromarray(a.astype(np.uint8)).save(tmp_path/'photos'/c/f'{i}.png')
    code, out, err = al(*FEW, '--data', 'folder:photos')
    assert (code, err) == (0, '') and 'dal-q5-photos-smoke' in out and '48 rows' in out
    assert os.getcwd() not in records()[0].read_text() + Path('al_repro_runs/report.html').read_text()
    assert Path('al_repro_runs/figures/dal-q5-photos-smoke-classes.png').exists()
    assert al('report', 'al_repro_runs', '--folder', tmp_path/'photos')[1].count('not drawn') == 0
    refused(al(*FEW, '--data', 'folder:photo'), 'no folder', 'give folder:PATH')
    (tmp_path/'photos'/'dark'/'0.png').write_bytes(b'')
    refused(al(*FEW, '--data', 'folder:photos'), 'cannot read', '0.png')

def folder(place, **classes):
    "A folder of tiny grey images, `classes`: how many of each"
    for c, (name, n) in enumerate(classes.items()):
        (place/name).mkdir(parents=True)
        for i in range(n):
            a = np.random.default_rng([c, i]).integers(0, 90, (8, 8)) + 80*c
            Image.fromarray(a.astype(np.uint8)).save(place/name/f'{i}.png')
    return f'folder:{place}'

@pytest.mark.parametrize('classes', [dict(a=40, b=40), dict(a=68, b=67), dict(a=100, b=1), dict(a=30, b=20)])
def test_small_and_lopsided_folders(al, tmp_path, monkeypatch, classes):
    """64, 108, 81 and 40 rows: every strategy of BAL's experiment finds its sub-pools.

    PAL goes without classes where it knows one."""
    monkeypatch.setenv('AL_REPRO_ASSETS', str(tmp_path/'assets'))
    code, out, err = al('reproduce', 'bal', '--scale', 'smoke', '--seeds', '1', '--workers', '1', '--quiet',
                        '--strategies', 'random,pal,bal', '--data', folder(tmp_path/'photos', **classes))
    assert (code, err) == (0, '') and len(records()) == 3 and all(read_json(f)['done'] for f in records())

def test_budgets_that_a_small_folder_has_no_room_for(al, tmp_path):
    names = lambda data: [p.name for p in choose('bal', *data_of(data)[:1], n=data_of(data)[1])]
    assert names(folder(tmp_path/'few', a=30, b=20)) == ['bal-base', 'bal-large', 'bal-base-shared', 'bal-base-cold']
    fewer = folder(tmp_path/'fewer', a=10, b=10)
    refused(al('reproduce', 'bal', '--data', fewer), '16 rows are too few for the base budget', 'use 20 or more')
    refused(al('reproduce', 'bal', '--data', folder(tmp_path/'one', a=30)), 'only one class')
    for paper in ('dal', 'diverse-minibatch', 'bal'):          # its name alone does not make it a large one
        for p in choose(paper, 'folder:/x/svhn', n=90): assert p.size == 28 and p.labels <= 90
    with pytest.raises(ValueError, match='protocol dal-q5 ends with 15 labels but 12 rows are in play'):
        run([replace(choose('dal', 'digits', 'smoke')[0], pool=12)], 'runs', ['random'])
    says = r"strategy bal\(beta=0.1, cycles=7\) cannot run in protocol 'bal-base': .*choose beta >= 0.35"
    with pytest.raises(ValueError, match=says):
        run(choose('bal', 'digits', 'smoke'), 'runs', ['random', 'bal(beta=0.1, cycles=7)'])
    assert not Path('runs').exists()

def test_one_strategy_that_cannot_run(al, fragile):
    args = [*SMOKE, '--seeds', '1', '--strategies', 'fragile,margin']
    code, out, err = al(*args)
    said = 'fragile of dal-q5-digits-smoke, seed 0, round 1: round 1 is too much'
    assert code == 4 and err == f'cannot go on: {said}\n'
    assert f'1 run could not go on; all others did, and what is recorded is kept:\n  {said}' in out
    assert 'To try these again' in out
    assert {f.name.split('-')[0]: read_json(f)['done'] for f in records()} == dict(fragile=False, margin=True)
    assert 'AULC' in out and '1 unfinished' in out and Path('al_repro_runs/report.html').exists()
    kept = stamps()
    assert al(*args)[0] == 4 and stamps() == kept          # the finished round is not repeated, nor lost
    assert al(*args, '--deadline', '1e9')[0] == 4
    code, out, err = al('reproduce', 'dal', '--scale', 'smoke', '--strategies', 'fragile,margin', '--dry-run')
    assert code == 4 and 'cannot run: fragile of dal-q5-digits-smoke: round 1 is too much' in out and 'margin' in out

HALF = """
def measure(seed):
    if seed % 2: raise ValueError(f'seed {seed} is odd')
    return dict(a=float(seed))
"""

@pytest.fixture
def half(tmp_path, monkeypatch):
    "A study that can be measured for even seeds only"
    (tmp_path/'half_study.py').write_text(HALF)
    monkeypatch.syspath_prepend(tmp_path)
    study = Study('half', 'half_study:measure', 'even seeds only', seeds=4)
    monkeypatch.setitem(PAPERS, 'half', Paper('half', 'Half', 1999, '', studies=(study,)))

@pytest.mark.parametrize('workers', [1, 2])
def test_one_seed_of_a_study_that_fails(al, half, workers, ready_workers):
    args = ['study', 'half', '--workers', workers, '--quiet']
    code, out, _ = al(*args)
    assert code == 4 and [read_study(f)['seed'] for f in records()] == [0, 2]
    says = [f'study half, seed {s}: seed {s} is odd' for s in (1, 3)]
    assert '2 seeds could not be measured; all others were, and are kept:\n  ' + '\n  '.join(says) in out
    assert 'To try these again' in out and re.search(r'a +\+1\.000 +1\.414 +2 ', out)
    kept = stamps()
    assert al(*args)[0] == 4 and stamps() == kept          # what was measured is not repeated
    assert al(*args, '--deadline', '1e9')[0] == 4

def test_a_study_on_an_executor(al, half):
    code, out, _ = al('study', 'half', '--executor', 'threads', '--quiet')
    assert code == 4 and [read_study(f)['seed'] for f in records()] == [0, 2]
    assert out.splitlines().count('  al_repro study half --executor threads') == 1
    refused(al('study', 'half', '--executor', 'thread'), "did you mean 'threads'?")

def test_a_seed_that_fails_shows_its_traceback_on_demand(al, half, monkeypatch):
    monkeypatch.setenv('AL_REPRO_DEBUG', '1')
    with pytest.raises(ValueError, match='is odd'): al('study', 'half', '--workers', '1', '--quiet')

def test_a_failure_shows_its_traceback_on_demand(al, fragile, monkeypatch):
    monkeypatch.setenv('AL_REPRO_DEBUG', '1')
    with pytest.raises(ValueError, match='too much'): al(*SMOKE, '--seeds', '1', '--strategies', 'fragile')


# ---- what goes wrong

@pytest.mark.parametrize('args, says', [
    (['dall'], "did you mean 'dal'?"),
    (['dal-q6'], "did you mean 'dal-q5'?"),
    (['dal', '--scale', 'smok'], "did you mean 'smoke'?"),
    (['dal', '--data', 'digit'], "did you mean 'digits'?"),
    (['dal', '--strategies', 'random,margn'], "did you mean 'margin'?"),
    (['dal', '--strategies', 'dal(mini_query=3)'], "did you mean 'mini_queries'?"),
    (['dal', '--strategies', 'dal(stop=1'], 'do not match'),
    (['dal', '--data', 'mnist', '--root', 'nowhere'], "download('mnist', 'nowhere')"),
    (['dal', '--executor', 'dusk://here:1'], 'choose processes, threads, dask://HOST:PORT')])
def test_unknown_names(al, args, says):
    refused(al('reproduce', *args), says)
    assert list(Path().iterdir()) == []

def test_no_cuda(al, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    refused(al(*FEW, '--device', 'cuda'), 'no CUDA device', '--device cpu')

def test_records_of_another_protocol(al):
    al(*FEW, '--out', 'a')
    f = records('a')[0]
    f.write_text(f.read_text().replace('"name":"dal-q5"', '"name":"dal-q9"'))
    before = stamps('a')
    refused(al(*FEW, '--out', 'a'), 'holds records of dal-q9', 'choose another --out')
    assert stamps('a') == before

def test_nowhere_to_write(al, monkeypatch):
    Path('file').write_text('mine')
    refused(al(*FEW, '--out', 'file'), 'cannot write to file', 'choose another --out')
    assert Path('file').read_text() == 'mine'
    al(*FEW, '--seeds', '1')
    before = stamps()
    def full(fd): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr('os.fsync', full)
    refused(al(*FEW), 'No space left on device', 'finished rounds are kept')
    assert stamps() == before and not list(Path().rglob('*.tmp'))

def test_interrupted(al, monkeypatch):
    def stop(*args, **kwargs): raise KeyboardInterrupt
    monkeypatch.setattr('al_repro.runs.runner.run', stop)
    code, _, err = al(*FEW)
    assert code == 130 and 'finished rounds are recorded' in err
    assert 'al_repro reproduce dal --scale smoke --strategies random,margin --workers 1' in err

def test_report_on_a_full_disk(al, monkeypatch):
    al(*FEW)
    assert al('report', 'al_repro_runs', '--out', 'page')[0] == 0
    kept, before = Path('page/report.html').read_bytes(), stamps()
    write, full = Path.write_text, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    def half(path, text, *args, **kwargs):
        write(path, text[:1000], *args, **kwargs)
        raise full
    def replace(*args): raise full
    both = ('pathlib.Path.write_text', 'page/report.html', half), ('os.replace', 'page/figures/', replace)
    for name, f, failing in both:
        with monkeypatch.context() as m:
            m.setattr(name, failing)
            says = f'cannot write {f}', 'No space left on device', 'the run records are safe', 'choose another --out'
            refused(al('report', 'al_repro_runs', '--out', 'page'), *says)
        assert Path('page/report.html').read_bytes() == kept and stamps() == before and not list(Path().rglob('*.tmp'))
    Path('new').write_text('mine')
    refused(al('report', 'al_repro_runs', '--out', 'new'), 'cannot write new/figures/', 'the run records are safe')
    assert Path('new').read_text() == 'mine'

def test_nothing_to_report(al):
    refused(al('report', 'nowhere'), 'no folder nowhere')
    Path('empty').mkdir()
    refused(al('report', 'empty'), 'no run records in empty')


# ---- select

@pytest.fixture
def arrays(tmp_path):
    "Files for `select`, and the query they stand for"
    rng = np.random.default_rng(0)
    p, e = rng.dirichlet(np.ones(4), 40), rng.normal(size=(40, 6))
    ids, y = rng.permutation(40)[:8], rng.integers(0, 4, 8)
    np.save(tmp_path/'p.npy', p)
    np.save(tmp_path/'e.npy', e)
    np.save(tmp_path/'m.npy', np.stack([p, p[:, ::-1]], 1))
    (tmp_path/'ids.txt').write_text('# start\n' + '\n'.join(map(str, ids)) + '\n\n')
    (tmp_path/'y.txt').write_text(' '.join(map(str, y)))
    return lambda: Query.from_arrays(probs=p, embeds=e, labelled=ids, labels=y, seed=3)

@pytest.mark.parametrize('name', ['margin', 'random', 'coreset', 'dal(mini_queries=2, max_epochs=3)'])
def test_select(al, arrays, name):
    args = ['select', *flags(**FILES), '--strategy', name, '--k', 5, '--seed', 3]
    code, out, err = al(*args)
    head, *rows = [l.split(',') for l in out.splitlines()]
    q, s = arrays(), build(name)
    want = s(q, 5)
    assert (code, err, head) == (0, '', ['rank', 'id', 'score'])
    assert [[int(r[0]), int(r[1])] for r in rows] == [[i, d] for i,d in enumerate(want, 1)]
    scores = [r[2] for r in rows]
    if s.score: assert [float(x) for x in scores] == pytest.approx(score_of(s, q, want), rel=1e-7)
    else: assert set(scores) == {''}
    code, said, _ = al(*args, '--out', 'picks.csv')
    assert Path('picks.csv').read_text() == out and '5 picks' in said

def test_select_refuses(al, arrays):
    def no(*says, strategy='margin', k=3, **files):
        given = dict(probs='p.npy', labelled='ids.txt') | files
        given = {key: f for key,f in given.items() if f}
        refused(al('select', '--strategy', strategy, '--k', k, *flags(**given)), *says)
    texts = {'bad.txt': '1\n2\nthree\n', 'half.txt': '1.5', 'far.txt': '3\n99\n', 'twice.txt': '3 3',
             'text.npy': 'not an array', 'empty.npy': ''}
    for name, content in texts.items(): Path(name).write_text(content)
    arrays = dict(object=np.array([{}, []], dtype=object), str=np.array(['a']), odd=np.full((40, 4), .3),
                  short=np.ones((3, 2)))
    for name, a in arrays.items(): np.save(f'{name}.npy', a)
    Path('cut.npy').write_bytes(Path('p.npy').read_bytes()[:300])
    Path('binary.txt').write_bytes(b'\xff\xfe\x00')
    no('nowhere.npy', probs='nowhere.npy')
    no('text.npy is not a .npy file', probs='text.npy')
    no('empty.npy is not', probs='empty.npy')
    no('object.npy cannot be read', probs='object.npy')
    no('str.npy holds', probs='str.npy')
    no('cut.npy cannot be read', probs='cut.npy')
    no('sums to 1.2', 'odd.npy', probs='odd.npy')
    no('different lengths', 'short.npy', embeds='short.npy')
    no("bad.txt, line 3: 'three' is not a whole number", labelled='bad.txt')
    no("half.txt, line 1: '1.5'", labelled='half.txt')
    no('binary.txt is not a text file', labelled='binary.txt')
    no('out of range for 40 rows', 'far.txt', labelled='far.txt')
    no('more than once', labelled='twice.txt')
    no('--labels twice.txt holds 2 classes for 8 labelled ids', labels='twice.txt')
    no('needs a labelled set and it is empty; give --labelled FILE', strategy='coreset', embeds='e.npy', labelled=None)
    no('k=33 with 32 unlabelled', k=33)
    no('give --probs, --embeds, --mc, --x, --features or --losses', probs=None)
    no('cannot write', out='nowhere/picks.csv')

MISSING = dict(margin='probs', entropy='probs', coreset='embeds', combined='probs', clustered='embeds', bald='mc',
               dal='embeds', vaal='x', pal='x', egl='x', activeft='features', bal='features', pt4al='losses')

@pytest.mark.parametrize('name, array', MISSING.items())
def test_a_missing_array_is_named_by_its_flag(al, arrays, name, array):
    "Its Python name stays in `argument`"
    rng = np.random.default_rng(0)
    np.save('x.npy', rng.integers(0, 255, (40, 1, 4, 4)).astype(np.uint8))
    np.save('f.npy', rng.normal(size=(40, 3)))
    np.save('l.npy', rng.random(40))
    given = FILES | dict(x='x.npy', features='f.npy', losses='l.npy')
    del given[array]
    said = f'al_repro: error: {name} needs an array that is missing; give --{array} FILE\n'
    assert al('select', *flags(**given), '--strategy', name, '-k', 3) == (2, '', said)
    held = dict(probs=np.load('p.npy'), embeds=np.load('e.npy'), mc=np.load('m.npy'), x=np.load('x.npy'),
                features=np.load('f.npy'), losses=np.load('l.npy'), labelled=[0, 1, 2, 3], labels=[0, 1, 2, 3])
    del held[array]
    with pytest.raises(ValueError) as e: build(name)(Query.from_arrays(**held), 3)
    assert e.value.argument == array

def test_no_array_tells_how_many_classes(al):
    np.save('f.npy', np.random.default_rng(0).normal(size=(40, 3)))
    refused(al('select', '--features', 'f.npy', '--strategy', 'bal', '-k', 3),
            'bal needs an array that is missing; give --probs FILE')


# ---- files of any kind, and what the console says

@pytest.fixture
def one_in_each(al, arrays):
    "The picks of `select`, whatever file the same ids, or labels, come in"
    def run(content, flag='labelled', strategy='margin', **more):
        Path('given').write_bytes(content if isinstance(content, bytes) else content.encode())
        files = dict(probs='p.npy', x='x.npy', labelled='ids.txt') | {flag: 'given'} | more
        np.save('x.npy', np.random.default_rng(1).integers(0, 255, (40, 1, 4, 4)).astype(np.uint8))
        return al('select', *flags(**files), '--strategy', strategy, '-k', 4)
    return run

def test_ids_in_any_file(al, one_in_each, arrays):
    import io, pandas as pd
    ids = arrays().labelled
    want = one_in_each(' '.join(map(str, ids)))
    assert want[0] == 0
    plain, floats, npy = '\n'.join(map(str, ids)), io.StringIO(), io.BytesIO()
    np.savetxt(floats, ids)
    np.save(npy, ids)
    frame, series = pd.DataFrame(dict(id=ids, label=ids%4)), pd.Series(ids)
    Path('own.csv').write_text('rank,id,score\n' + ''.join(f'{i},{d},\n' for i,d in enumerate(ids, 1)))
    texts = [plain, '\ufeff' + plain, plain.encode('utf-16'), floats.getvalue(), npy.getvalue(),
             ','.join(map(str, ids)), Path('own.csv').read_text(), '"id"\n' + plain]
    one = frame[['id']]
    tables = [series.to_csv(), series.to_csv(header=False, index=False), frame.to_csv(), frame.to_csv(index=False),
              one.to_csv(index=False), one.rename(columns=dict(id='row number')).to_csv()]
    for content in texts + tables:
        assert one_in_each(content) == want, content
    picks = al('select', '--probs', 'p.npy', '--strategy', 'margin', '-k', 3)[1]         # one batch, then the next
    assert one_in_each(picks)[0] == 0
    wrong = {'a,b\n1,2\n': "has the columns a, b; name one of them 'id'", '1\nnan\n': "line 2: 'nan'",
             'id\n1.5\n': "line 2: '1.5' is not a whole number", '1e400': 'not a whole number'}
    for content, says in wrong.items():
        refused(one_in_each(content), says)

def test_labels_in_any_file(one_in_each, arrays):
    import pandas as pd
    y = arrays()._labels
    names = np.array(['a cat', 'ox', 'pig', 'yak'])[y]
    pal = dict(flag='labels', strategy='pal(model=mlp, epochs=2, min_steps=4)')
    code, want, err = one_in_each(' '.join(map(str, y)), **pal)
    assert (code, err) == (0, '')
    frame, lines = pd.DataFrame(dict(id=0*y, label=names)), '\n'.join(names)
    for content in (lines, 'label\n' + lines, frame.to_csv(), pd.Series(y*1.).to_csv()):
        code, out, err = one_in_each(content, **pal)
        numbered = 'classes are numbered in alphabetical order: 0 a cat, 1 ox' in err
        assert (code, out) == (0, want) and ('ox' in content) == numbered
    refused(one_in_each('1\ncat\n', **pal), "line 2: 'cat' is not a whole number")

def test_no_python_in_what_the_console_says(al, arrays):
    "Every strategy without what it needs: the flag is named, or that there is none; never a Python call"
    from al_repro.query.spec import known
    for name in known():
        for given in (['probs'], ['embeds'], ['probs', 'embeds', 'mc', 'labelled']):
            code, out, err = al('select', *flags(**{k: FILES[k] for k in given}), '--strategy', name, '--k', 3)
            assert code in (0, 2) and not re.search(r'\w=( |$|,)|--model|from_arrays\(|Traceback', err), (name, err)
            assert set(re.findall(r'give --(\w+)', err)) <= {*FILES, 'x', 'features', 'losses'}
    np.save('x.npy', np.zeros((40, 1, 4, 4), np.uint8))
    refused(al('select', '--x', 'x.npy', '--strategy', 'dfal', '--k', 3),
            'dfal needs the model, which this query does not hold; no file can hold it')

def test_scores_with_options(al, arrays):
    def scores(s):
        out = al('select', '--probs', 'p.npy', '--mc', 'm.npy', '--strategy', s, '-k', 4)[1]
        return [l.split(',')[2] for l in out.splitlines()[1:]]
    assert all(map(float, scores('bald'))) and scores('bald(samples=6)') == scores('bald')
    assert all(scores('variation_ratio(of=mean)')) and scores('random') == ['']*4

def test_suggestions_are_near(al, arrays):
    err = al('select', '--probs', 'p.npy', '--strategy', 'zzz', '-k', 3)[2]
    assert 'did you mean' not in err and 'known: activeft, badge, bal' in err
    assert "did you mean 'margin'?" in al('select', '--probs', 'p.npy', '--strategy', 'margn', '-k', 3)[2]

def test_out_of_memory_is_one_line(al, arrays, monkeypatch):
    def short(*args, **kwargs): raise MemoryError('Unable to allocate 9 EiB')
    monkeypatch.setattr('al_repro.cli.select.read_array', short)
    refused(al('select', '--probs', 'p.npy', '--strategy', 'margin', '-k', 3),
            'out of memory (Unable to allocate 9 EiB)')

def test_features_need_a_pretext_task(al):
    refused(al(*FEW[:-1], 'random,activeft'), 'strategy activeft needs features', 'has no pretext task')
    assert not Path('al_repro_runs').exists()


# ---- select --images

@pytest.fixture
def heap(al, tmp_path, monkeypatch):
    "A folder of forty pictures, and a backbone that sees their colours"
    from torch import nn
    from al_repro.data.backbones import BACKBONES, _MAKERS, backbone, FrozenNet
    monkeypatch.setenv('AL_REPRO_ASSETS', str(tmp_path/'cache'))
    for known in (BACKBONES, _MAKERS): monkeypatch.setitem(known, 'seen', None) # taken out afterwards
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone('seen', 'colours')(lambda: FrozenNet('seen', mean, 'nothing', size=4))
    for i in range(40):
        (tmp_path/'heap'/f'day {i % 3}').mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (9, 7), (6*i, 255*(i % 2), 90)).save(tmp_path/'heap'/f'day {i % 3}'/f'{i:02}, a.png')
    monkeypatch.chdir(tmp_path)
    given = 'select', '--images', 'heap', '--backbone', 'seen'
    return lambda *more, k=4, strategy='coreset': al(*given, '--strategy', strategy, '-k', k, *more)

def csv_rows(path): return list(csv.DictReader(Path(path).open(newline='')))

def label(path, classes=('even', 'odd')):
    "Fill in a table of picks"
    rows = [r | dict(label=classes[int(r['file'][-9:-7]) % 2 if len(classes) > 1 else 0]) for r in csv_rows(path)]
    with Path(path).open('w', newline='') as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader()
        w.writerows(rows)

def test_two_rounds_of_images(heap):
    code, out, err = heap('--out', 'one.csv', '--sheet', 'one.html', '--copy', 'copies')
    assert (code, out) == (0, '') and '4 picks of coreset: table one.csv, page one.html, copies copies' in err
    rows = csv_rows('one.csv')
    assert [*rows[0]] == ['rank', 'file', 'label', 'score', 'reason'] and len({r['file'] for r in rows}) == 4
    assert all((Path('copies')/r['file']).is_file() for r in rows)
    assert Path('one.html').read_text().count('<figure>') == 4
    label('one.csv')
    code, out, err = heap('--labels', 'one.csv', '--out', 'two.csv', strategy='random', k=6)
    assert code == 0 and 'linear model of 4 labels in 2 classes' in err
    label('two.csv')
    code, out, err = heap('--labels', 'one.csv', 'two.csv', strategy='margin', k=3)
    picks = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and 'linear model of 10 labels' in err and all(p['reason'].startswith('looks like') for p in picks)
    assert not {p['file'] for p in picks} & {r['file'] for r in rows + csv_rows('two.csv')}
    scores = [float(p['score']) for p in picks]
    assert scores == sorted(scores, reverse=True)
    assert heap('--labels', 'one.csv', 'two.csv', strategy='margin', k=3)[1] == out

def test_images_refused(heap):
    heap('--out', 'one.csv')
    label('one.csv')
    Path('no.txt').write_text('day 1/*\n')
    Path('far.csv').write_text('file,label\nday 0/99.png,x\n')
    refused(heap('--labels', 'far.csv'), "far.csv, line 2: there is no image 'day 0/99.png' in heap")
    refused(heap('--out', 'one.csv'), '--out one.csv holds labels already')
    refused(heap(k=41), '--k 41 of 40 images left (40 images, 0 labelled, 0 excluded or unreadable)')
    refused(heap('--labels', 'one.csv', '--exclude', 'no.txt', k=40), 'images left (40 images, 4 labelled,')
    refused(heap(strategy='margin'), 'needs class probabilities, and there are no labels yet')
    refused(heap('--probs', 'p.npy'), '--probs does not go with --images')
    refused(heap('--images', 'nowhere'), '--images nowhere is no folder')
    refused(heap('--copy', 'heap/more'), 'choose a folder outside')
    refused(heap('--backbone', 'sen'), "unknown backbone 'sen'; did you mean 'seen'?")
    Path('none').mkdir()
    refused(heap('--images', 'none'), 'no images in none')

def test_flags_of_images_alone(al, arrays):
    given = 'select', '--probs', 'p.npy', '--strategy', 'margin', '-k', 3
    refused(al(*given, '--sheet', 'x.html'), '--sheet needs --images FOLDER')
    refused(al(*given, '--labelled', 'ids.txt', '--labels', 'y.txt', 'y.txt'), '--labels takes one file')
