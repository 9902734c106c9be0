"Executors: threads, a Dask cluster of two processes, workers that die; the records are those of our own processes"
import os, random, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
import pytest
import al_repro
from al_repro.data.catalog import load
from al_repro.models import assets
from al_repro.runs import executors, steps
from al_repro.runs.jobs import CannotRun, Job
from al_repro.runs.local import Ground
from al_repro.runs.lock import LOCK, InUse, OneWriter
from al_repro.runs.merge import merge
from al_repro.runs.paper import protocols
from al_repro.runs.records import load_records
from al_repro.runs.pilot import runs_at_once
from al_repro.runs.runner import run
from al_repro.runs.study import Study, attempt_afar, run_study, study_records


SMOKE = protocols('dal', 'digits', 'smoke')[0]
LONG = replace(SMOKE, rounds=9)
WARM = replace(LONG, name='warm', recipe=replace(LONG.recipe, warm=True))
SPECS = 'margin', 'random', 'coreset'
PATIENCE = 120 # seconds; only a hang lasts so long

def go(out, ps=(SMOKE,), specs=SPECS, seeds=2, **k):
    return run(list(ps), out, list(specs), seeds, progress=False, **k)

def told(out):
    "Records as they are written, without seconds and versions; none is damaged"
    found, damaged = load_records(out)
    assert not damaged
    def plain(r): return r | dict(versions=None, rounds=[x | dict(seconds=None) for x in r['rounds']])
    return {(r['protocol']['name'], r['label'], r['seed']): plain(r) for r in found}

def assert_same(a, b):
    one, other = told(a), told(b)
    assert one == other and all(r['done'] for r in one.values())
    assert [*map(list, one.values())] == [*map(list, other.values())] # keys in the same order: the same bytes

def rounds(out): return sum(len(r['rounds']) for r in told(out).values()) if Path(out).is_dir() else 0

def until(true, what):
    start = time.monotonic()
    while not true():
        if time.monotonic() - start > PATIENCE: raise TimeoutError(f'waited {PATIENCE} s for {what}')
        time.sleep(.02)

def toy_study(f='draw', **more): return Study('toy', f'{__name__}:{f}', 'a number for each seed', seeds=4, **more)

def draw(seed): return dict(value=random.Random(seed).random())
def brightness(seed, data): return dict(value=float(data.x[seed].float().mean()))

class Meanwhile(threading.Thread):
    "A call in a thread of its own; `join` gives what it raised"
    def __init__(self, f, *args, **kwargs):
        super().__init__(daemon=True)
        self.call, self.error = (f, args, kwargs), None
        self.start()
    def run(self):
        f, args, kwargs = self.call
        try: f(*args, **kwargs)
        except BaseException as e: self.error = e
    def outcome(self):
        self.join(PATIENCE)
        assert not self.is_alive(), 'it hangs'
        return self.error

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "Runs of this process alone"
    out = tmp_path_factory.mktemp('whole')
    assert go(out, workers=1) == 0
    return out

@pytest.fixture(scope='module')
def long(tmp_path_factory):
    out = tmp_path_factory.mktemp('long')
    assert go(out, [LONG, WARM], ['margin'], workers=1) == 0
    return out

@pytest.fixture
def one_round(monkeypatch):
    "A step is one round"
    monkeypatch.setattr(executors, 'STEP_SECONDS', 0.)


# ---------------------------------------------------------------- threads, and whatever else is an executor

def test_threads(whole, tmp_path):
    assert go(tmp_path, executor='threads', workers=2) == 0
    assert_same(tmp_path, whole)

def test_an_executor_of_ones_own_is_left_open(whole, tmp_path, one_round):
    with ThreadPoolExecutor(3) as mine:
        assert go(tmp_path, executor=mine) == 0
        assert mine.submit(abs, -1).result() == 1
    assert_same(tmp_path, whole)

def test_warm_runs_go_on_whoever_takes_the_next_step(long, tmp_path, one_round, monkeypatch):
    own = executors.take_step
    def forgetful(step): # as if each step went to another worker
        steps._HELD.clear()
        return own(step)
    monkeypatch.setattr(executors, 'take_step', forgetful)
    assert go(tmp_path, [LONG, WARM], ['margin'], executor='threads', workers=1) == 0
    assert_same(tmp_path, long)

@pytest.mark.parametrize('where', [dict(executor='threads'), dict(workers=1), dict(workers=2)])
def test_a_deadline_that_is_over_at_once(where, whole, tmp_path, ready_workers):
    "Each call goes further by at least a round, whoever does it"
    assert go(tmp_path, deadline=1e-6, **where) > 0
    assert 1 <= (first := rounds(tmp_path)) < 18
    assert go(tmp_path, deadline=1e-6, **where) > 0 and rounds(tmp_path) > first
    assert go(tmp_path, **where) == 0
    assert_same(tmp_path, whole)

def test_ctrl_c(whole, tmp_path, one_round, monkeypatch):
    write, count = executors.write_json, []
    def interrupted(*args):
        count.append(1)
        if len(count) == 4: raise KeyboardInterrupt
        write(*args)
    with monkeypatch.context() as m:
        m.setattr(executors, 'write_json', interrupted)
        with pytest.raises(KeyboardInterrupt): go(tmp_path, executor='threads')
    assert rounds(tmp_path) == 3
    assert go(tmp_path, executor='threads') == 0
    assert_same(tmp_path, whole)

def test_what_is_begun_here_is_finished_there(long, tmp_path, one_round):
    "The same command with another executor"
    assert go(tmp_path, [LONG, WARM], ['margin'], workers=1, deadline=1e-6) > 0
    assert 0 < rounds(tmp_path) < 40
    assert go(tmp_path, [LONG, WARM], ['margin'], executor='threads') == 0
    assert_same(tmp_path, long)

def test_two_at_once_on_one_folder(long, tmp_path, one_round):
    "The second one is refused, whatever it would do there; the first goes on, and readers read"
    first = Meanwhile(go, tmp_path, [LONG, WARM], ['margin'], executor='threads')
    until(lambda: rounds(tmp_path) >= 2, 'two rounds')
    for second in (dict(workers=2), dict(executor='threads'), dict(workers=1)):
        with pytest.raises(InUse, match=f'process {os.getpid()} on ') as e: go(tmp_path, **second)
        assert str(tmp_path) in str(e.value) and 'choose another --out' in str(e.value)
    with pytest.raises(InUse): run_study(toy_study(), tmp_path, progress=False)
    with pytest.raises(InUse): merge([long], tmp_path)
    assert rounds(tmp_path) > 0 and (tmp_path/LOCK).exists() and first.is_alive()
    assert first.outcome() is None
    assert_same(tmp_path, long)
    assert not (tmp_path/LOCK).exists()

def test_nothing_to_do_asks_for_no_lock(whole):
    with OneWriter(whole) as other:
        other.take()
        assert go(whole, workers=1) == 0

def test_a_strategy_that_cannot_run(tmp_path, fragile):
    says = 'fragile of dal-q5-digits-smoke, seed 0, round 1: round 1 is too much'
    with pytest.raises(CannotRun, match=says) as e:
        go(tmp_path, specs=['fragile', 'margin'], seeds=1, executor='threads')
    assert e.value.left == 2 and {k[1]: len(r['rounds']) for k,r in told(tmp_path).items()} == dict(fragile=1, margin=3)


# ---------------------------------------------------------------- studies

def values(out):
    found, damaged = study_records(out)
    assert not damaged
    return {(r['study'], r['data']['fingerprint'], r['seed']): r['values'] for r in found}

@pytest.mark.parametrize('f, data', [('draw', None), ('brightness', 'digits')])
def test_a_study(f, data, tmp_path):
    study = toy_study(f, data=data)
    assert run_study(study, tmp_path/'here', workers=1, progress=False) == 0
    assert run_study(study, tmp_path/'there', executor='threads', progress=False) == 0
    with ThreadPoolExecutor(3) as mine: assert run_study(study, tmp_path/'mine', executor=mine, progress=False) == 0
    assert len(values(tmp_path/'here')) == 4
    assert values(tmp_path/'here') == values(tmp_path/'there') == values(tmp_path/'mine')

@pytest.mark.parametrize('where', [dict(executor='threads', workers=1), dict(workers=1), dict(workers=2)])
def test_a_study_whose_deadline_is_over_at_once(where, tmp_path, ready_workers):
    left = run_study(toy_study(), tmp_path, deadline=1e-9, progress=False, **where)
    assert left == 4 - where['workers'] # one for each worker
    assert run_study(toy_study(), tmp_path, progress=False, **where) == 0

def test_a_study_with_other_data_or_code(tmp_path):
    job = toy_study('brightness', data='digits'), 'quick', 0, 'digits', None, 'cpu'
    with pytest.raises(steps.WrongWorker, match='with fingerprint .*copy the same files'):
        attempt_afar(al_repro.__version__, '0123456789ab', *job)
    with pytest.raises(steps.WrongWorker, match='other code .* 0.0 there.*install the same version'):
        attempt_afar('0.0', load('digits').fingerprint, *job)

def test_a_study_that_ends_its_executor(tmp_path):
    def gone(*_): raise OSError('no such disk')
    with ThreadPoolExecutor(1) as mine:
        mine.submit = gone
        with pytest.raises(OSError): run_study(toy_study(), tmp_path, executor=mine, progress=False)
    assert not (tmp_path/LOCK).exists()


# ---------------------------------------------------------------- who may not

@pytest.mark.parametrize('name, says', [
    ('thread', "did you mean 'threads'"), ('dask://somewhere', 'choose processes, threads, dask://HOST:PORT'),
    (7, 'executor=7')])
def test_unknown_executor(name, says, tmp_path):
    with pytest.raises(ValueError, match=says) as e: go(tmp_path, executor=name)
    assert e.value.argument == 'executor' and not any(tmp_path.iterdir())

@pytest.mark.parametrize('key', ['al_repro', 'strategy margin', 'model mlp'])
def test_other_code(key, tmp_path, monkeypatch):
    own = executors.code_of
    monkeypatch.setattr(executors, 'code_of', lambda job: own(job) | {key: 'another'})
    says = f"worker on .*other code .*{key} .*, 'another' there.*install the same version"
    with pytest.raises(RuntimeError, match=says):
        go(tmp_path, [replace(SMOKE, recipe=replace(SMOKE.recipe, model='mlp'))], executor='threads')
    assert rounds(tmp_path) == 0

def step_of(p, data, **change):
    ground = Ground((p.data, None, p.size), data.fingerprint, 'cpu', 'nowhere')
    job = Job(p, list(p.strategies[:1]), [0])
    return replace(steps.Step(job, {}, ground, steps.code_of(job)), **change)

def test_other_data(monkeypatch):
    data = load('digits')
    other = replace(data, y=data.y.flip(0))
    monkeypatch.setattr(steps, 'load', lambda *a: other)
    steps._HELD.clear()
    said = steps.take_step(step_of(SMOKE, data)).trouble
    assert data.fingerprint in said and other.fingerprint in said and 'copy the same files' in said
    def absent(*a): raise FileNotFoundError('no digits here')
    monkeypatch.setattr(steps, 'load', absent)
    assert 'no digits here' in steps.take_step(step_of(SMOKE, data)).trouble

def test_other_features(tmp_path, monkeypatch):
    monkeypatch.setenv('AL_REPRO_ASSETS', str(tmp_path))
    p = protocols('bal', 'digits', 'smoke')[0]
    said = steps.take_step(step_of(p, load('digits'), assets='0123456789ab')).trouble
    assert 'those of the records have 0123456789ab' in said and 'AL_REPRO_ASSETS' in said

def test_nobody_answers():
    pytest.importorskip('distributed')
    says = 'no Dask scheduler answers at tcp://127.0.0.1:9 .*start one with `dask scheduler`'
    with pytest.raises(ValueError, match=says):
        with executors.dask_executor('dask://127.0.0.1:9', patience=1): pass

def test_without_the_library(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'distributed', None)
    with pytest.raises(ImportError, match=r"pip install 'al_repro\[dask\]'"):
        with executors.dask_executor('dask://127.0.0.1:9'): pass


# ---------------------------------------------------------------- a cluster

@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    "Two worker processes, each with a cache of its own"
    distributed = pytest.importorskip('distributed')
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as c:
        with distributed.Client(c, set_as_default=False) as client:
            for i, worker in enumerate(client.scheduler_info()['workers']):
                cache = str(tmp_path_factory.mktemp(f'cache{i}'))
                client.run(exec, f"import os; os.environ['AL_REPRO_ASSETS'] = {cache!r}", workers=[worker])
            yield c

def address(cluster): return cluster.scheduler_address.replace('tcp://', 'dask://')

def workers_run(cluster, f, *args):
    from distributed import Client
    with Client(cluster, set_as_default=False) as client: return client.run(f, *args)

def test_cluster(cluster, whole, tmp_path, one_round):
    assert go(tmp_path, executor=address(cluster)) == 0
    assert_same(tmp_path, whole)

def test_study_on_a_cluster(cluster, tmp_path):
    what = dict(study='rankings', seeds=2, scale='smoke', data='digits', progress=False)
    assert run_study(out=tmp_path/'here', workers=1, **what) == 0
    assert run_study(out=tmp_path/'there', executor=address(cluster), **what) == 0
    assert len(values(tmp_path/'here')) == 2 and values(tmp_path/'here') == values(tmp_path/'there')

def test_workers_of_a_cluster(cluster):
    "What a dry run counts; some may be promised before they are there"
    assert runs_at_once('cpu', None, address(cluster)) == 2 and runs_at_once('cpu', 64, address(cluster)) == 64

def test_pretext_features_in_two_caches(cluster, tmp_path, monkeypatch, one_round):
    monkeypatch.setenv('AL_REPRO_ASSETS', str(tmp_path/'own'))
    p = protocols('bal', 'digits', 'smoke')[0]
    specs = ['random', next(s for s in p.strategies if s.name == 'bal')]
    assert go(tmp_path/'here', [p], specs, workers=1) == 0
    assert go(tmp_path/'there', [p], specs, executor=address(cluster)) == 0
    assert_same(tmp_path/'here', tmp_path/'there')
    caches = set(workers_run(cluster, os.getenv, 'AL_REPRO_ASSETS').values())
    assert len(caches) == 2 and all(len([*Path(c).glob('*.npz')]) == 1 for c in caches)
    name, = Path(tmp_path/'own').glob('*.npz')
    arrays = [assets.read_npz(f)[1] for f in (name, *(Path(c)/name.name for c in caches))]
    assert len({assets.content_digest(a) for a in arrays}) == 1

def test_a_worker_dies(cluster, long, tmp_path, one_round):
    going = Meanwhile(go, tmp_path, [LONG, WARM], ['margin'], executor=address(cluster))
    until(lambda: rounds(tmp_path) >= 6, 'six rounds')
    os.kill(next(iter(workers_run(cluster, os.getpid).values())), signal.SIGKILL)
    assert going.outcome() is None
    assert_same(tmp_path, long)

def test_the_scheduler_dies(long, tmp_path, one_round):
    distributed = pytest.importorskip('distributed')
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as c:
        mine = distributed.Client(c, set_as_default=False).get_executor(pure=False)
        going = Meanwhile(go, tmp_path, [LONG, WARM], ['margin'], executor=mine)
        until(lambda: rounds(tmp_path) >= 6, 'six rounds')
    error = going.outcome()
    assert isinstance(error, executors.LostWorkers) and 'run the same command again' in str(error), error
    assert 6 <= rounds(tmp_path) < 40
    assert go(tmp_path, [LONG, WARM], ['margin'], workers=1) == 0
    assert_same(tmp_path, long)
