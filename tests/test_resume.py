"""A run that is killed, interrupted, damaged or out of disk goes on to the very record of a run left alone.

The kills are played by a process of its own, which imports everything once and forks: `driver` below.
"""
import errno, json, os, random, shutil, signal, subprocess, sys, time, traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
import pytest, torch
from al_repro.data.catalog import load
from al_repro.query.strategy import REGISTRY
from al_repro.query.spec import Spec, known
from al_repro.runs import local, records
from al_repro.runs.paper import protocols
from al_repro.runs.records import identity, load_records, path_of, read_json, table
from al_repro.runs.runner import run
from al_repro.runs.records import same_run

pytestmark = pytest.mark.skipif(os.name != 'posix', reason='kill -9, process groups and fork')

ROOT = Path(__file__).resolve().parent.parent
SMOKE = protocols('dal', 'digits', 'smoke')[0]
SHORT = replace(SMOKE, rounds=4)
LONG = replace(SMOKE, rounds=9)
ALL = 2*2*(LONG.rounds + 1) # rounds of a sweep
DAL = 'dal(batch=256, lr=0.001, max_epochs=5, mini_queries=2)'
PATIENCE = 120 # seconds; only a hang lasts so long


def sweep(out, p=LONG, specs=('margin', DAL), seeds=2, workers=1, **k):
    return run([p], out, list(specs), seeds, workers=workers, progress=False, **k)

def margin(out, p=SHORT, **k): return sweep(out, p, ['margin'], 1, **k)

def of_margin(out, p=SHORT, seed=0):
    spec = Spec.make('margin')
    return path_of(out, p, spec, seed, identity(p, spec, load('digits').fingerprint))

def by_run(out):
    "All records, none of them damaged"
    found, damaged = load_records(out)
    assert not damaged
    return {(r['label'], r['seed']): r for r in found}

def assert_same(out, whole):
    a, b = by_run(out), by_run(whole)
    assert set(a) == set(b) and all(r['done'] for r in b.values())
    for k in a: assert same_run(a[k], b[k]), k

def done(out):
    "Rounds recorded so far, in all; whatever moment this looks at, no record is half"
    return sum(len(r['rounds']) for r in by_run(out).values()) if Path(out).is_dir() else 0

def until(true, what):
    start = time.time()
    while not true():
        if time.time() - start > PATIENCE: raise TimeoutError(f'waited {PATIENCE} s for {what}')
        time.sleep(.02) # each look reads all records

def alive(group):
    "Processes of a group that still run (one that has ended but was not collected does not count)"
    if Path('/proc/self/stat').exists():
        stats = []
        for f in Path('/proc').glob('[0-9]*/stat'):
            try: stats.append((f.parent.name, f.read_text().rpartition(')')[2].split()))
            except OSError: pass
        return [pid for pid,s in stats if s[2] == str(group) and s[0] not in 'ZX']
    lines = subprocess.run(['ps', '-A', '-o', 'pid=,pgid=,stat='], capture_output=True, text=True).stdout.splitlines()
    return [l.split()[0] for l in lines if l.split()[1] == str(group) and l.split()[2][0] != 'Z']


# ---- the process that starts others and kills them

started = [] # groups

def forked(f, *args, **kwargs):
    "The id of a fork, leader of its own group, that calls f"
    if pid := os.fork():
        try: os.setpgid(pid, pid)
        except OSError: pass # it did so itself
        started.append(pid)
        return pid
    try:
        os.setpgid(0, 0)
        f(*args, **kwargs)
        os._exit(0)
    except BaseException: traceback.print_exc()
    os._exit(1)

def ended(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def killed_anywhere(out, rng):
    "Killed with its group, some fraction of a round after some round"
    before, after = done(out), rng.choice([0, 1, 2])
    pid = forked(sweep, out)
    until(lambda: done(out) >= before + after, 'the next rounds')
    time.sleep(rng.uniform(0, .05))
    os.killpg(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL

def killed_writing(out, rng, where):
    "Kills itself in its n-th write: half of the text on the disk, or before or after that takes the old one's place"
    n, count, fsync, replace_ = rng.choice([1, 2]), [0], os.fsync, os.replace
    def die(): os.killpg(0, signal.SIGKILL)
    def new_fsync(fd):
        count[0] += 1
        if where == 'half' and count[0] == n:
            os.ftruncate(fd, os.fstat(fd).st_size//2)
            die()
        fsync(fd)
    def new_replace(a, b):
        if where == 'before' and count[0] == n: die()
        replace_(a, b)
        if where == 'after' and count[0] == n: die()
    def child():
        os.fsync, os.replace = new_fsync, new_replace
        sweep(out)
    assert ended(forked(child)) == -signal.SIGKILL

def orphaned(out, rng, when):
    "Only the main process is killed; its workers end by themselves"
    pid = forked(sweep, out, workers=2)
    until(lambda: when(out), 'its moment')
    time.sleep(rng.uniform(.1, .2))
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    until(lambda: not alive(pid), 'the orphans to end')

def finished(out): return {k for k,r in by_run(out).items() if r['done']} # labels and seeds

def cut(out):
    "Take one round of each run away, and of the last one most"
    for f in Path(out).rglob('*.json'):
        r = read_json(f)
        keep = 1 if (r['label'], r['seed']) == (DAL, 1) else LONG.rounds
        f.write_text(json.dumps(r | dict(rounds=r['rounds'][:keep], done=keep > LONG.rounds)))

def driver(out):
    "Kills sweeps, then lets each come to its end; `AssertionError` if something is amiss"
    torch.set_num_threads(1) # a fork cannot take over the threads of its parent
    import_module('torch._dynamo') # as the first optimizer does: else each fork imports it for seconds
    load('digits')
    known() # and each strategy
    try: play(random.Random(0), Path(out)/'killed', Path(out)/'idle', Path(out)/'shared')
    finally: # should anything have gone wrong
        for group in started:
            try: os.killpg(group, signal.SIGKILL)
            except OSError: pass

def play(rng, killed, idle, shared):
    "A sweep killed ten times; one killed while a worker had nothing left to do; two that begin at once"
    orphaned(killed, rng, lambda out: done(out) > 0)
    kinds = [killed_anywhere]*6 + [lambda *a, w=w: killed_writing(*a, w) for w in ('half', 'before', 'after')]
    rng.shuffle(kinds)
    for k in kinds: k(killed, rng)
    assert not finished(killed) >= {('margin', 1), (DAL, 1)}
    assert ended(forked(sweep, killed)) == 0
    for _ in range(5): # the moment is short: the other worker may come too late for it
        shutil.rmtree(idle, ignore_errors=True)
        shutil.copytree(killed, idle)
        cut(idle)
        orphaned(idle, rng, lambda out: len(finished(out)) >= 3)
        if len(finished(idle)) == 3 and (DAL, 1) not in finished(idle): break
    assert len(finished(idle)) == 3 and (DAL, 1) not in finished(idle)
    assert ended(forked(sweep, idle)) == 0
    both = [forked(margin, shared) for _ in range(2)]
    first, second = sorted(ended(pid) for pid in both)
    assert first == 0 and second in (0, 1) # refused, unless it came when all was done
    assert not list(shared.glob('.*')) and ended(forked(margin, shared)) == 0
    print('as planned')


# ---- tests

def environment():
    path = [str(ROOT), str(ROOT/'tests'), os.environ.get('PYTHONPATH', '')]
    threads = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    return os.environ | threads | dict(PYTHONPATH=os.pathsep.join(filter(None, path)))

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The sweep left alone"
    out = tmp_path_factory.mktemp('whole')
    assert sweep(out) == 0
    return out

@pytest.fixture(scope='module')
def short(tmp_path_factory):
    "A short run left alone"
    out = tmp_path_factory.mktemp('short')
    assert margin(out) == 0
    return out

@pytest.fixture(scope='module')
def driven(tmp_path_factory):
    out = tmp_path_factory.mktemp('driven')
    code = f'import test_resume; test_resume.driver({str(out)!r})'
    p = subprocess.run([sys.executable, '-c', code], env=environment(), capture_output=True, text=True)
    assert p.returncode == 0 and 'as planned' in p.stdout, p.stderr[-4000:]
    return out

def test_killed_ten_times(driven, whole):
    assert_same(driven/'killed', whole)
    assert len(table(driven/'killed')) == len(table(whole)) == ALL

def test_killed_while_a_worker_idles(driven, whole): assert_same(driven/'idle', whole)

def test_two_at_once_on_one_folder(driven, short): assert_same(driven/'shared', short)

def test_ctrl_c_ends_all_and_two_workers_do_as_one(tmp_path, whole, ready_workers):
    # a shell's background job would inherit a deaf ear
    hear = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler); '
    code = hear + f'import test_resume; test_resume.sweep({str(tmp_path)!r}, workers=2)'
    heard = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    p = subprocess.Popen([sys.executable, '-c', code], env=environment(), start_new_session=True, **heard)
    until(lambda: done(tmp_path) >= 3, 'three rounds')
    os.killpg(p.pid, signal.SIGINT) # as a terminal sends it: to the workers too
    said, _ = p.communicate(timeout=PATIENCE)
    assert p.returncode != 0 and said.count('KeyboardInterrupt') == said.count('Traceback') == 1, said
    until(lambda: not alive(p.pid), 'the workers to end')
    assert 3 <= done(tmp_path) < ALL
    sweep(tmp_path, workers=2)
    assert_same(tmp_path, whole)

class Half:
    "A file on a disk that fills up in the middle of a write"
    def __init__(self, f): self.f = f
    def __enter__(self): return self
    def __exit__(self, *_): self.f.close()
    def write(self, text):
        self.f.write(text[:len(text)//2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def failing(monkeypatch, where, error, n=3):
    "The n-th write of a record fails"
    count = [0]
    def fails(real):
        def f(*args, **kwargs):
            count[0] += 1
            if count[0] != n: return real(*args, **kwargs)
            if where == 'write': return Half(real(*args, **kwargs))
            raise error
        return f
    if where in ('open', 'write'): monkeypatch.setattr(records, 'open', fails(open), raising=False)
    else: monkeypatch.setattr(os, where, fails(getattr(os, where)))

@pytest.mark.parametrize('where', ['open', 'write', 'fsync', 'replace'])
def test_disk_full(where, tmp_path, short, monkeypatch):
    with monkeypatch.context() as m:
        failing(m, where, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OSError, match='make room or choose another --out') as e: margin(tmp_path)
    f = of_margin(tmp_path)
    assert e.value.errno == errno.ENOSPC and str(f) in str(e.value)
    assert len(read_json(f)['rounds']) == 2 and not list(tmp_path.rglob('*.tmp'))
    margin(tmp_path)
    assert_same(tmp_path, short)

def test_ctrl_c_in_a_write(tmp_path, short, monkeypatch):
    with monkeypatch.context() as m:
        failing(m, 'fsync', KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt): margin(tmp_path)
    assert len(read_json(of_margin(tmp_path))['rounds']) == 2 and not list(tmp_path.rglob('*.tmp'))
    margin(tmp_path)
    assert_same(tmp_path, short)

def test_nowhere_to_write(tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(OSError, match='cannot write to .*file.*another --out'): margin(tmp_path/'file')

def test_deadline_then_resumed(tmp_path, short):
    assert margin(tmp_path, deadline=1e-6) == 4 and done(tmp_path) == 1
    assert margin(tmp_path) == 0
    assert_same(tmp_path, short)

def test_deadline_with_runs_that_wait(monkeypatch):
    "A run not begun is left out, while another still goes to the end of its round"
    monkeypatch.setattr(local, 'processes', lambda *a: ThreadPoolExecutor(1))
    monkeypatch.setattr(local, '_work', lambda job: time.sleep(1) or [job])
    bar, ground = SimpleNamespace(n=0, update=lambda n: None), local.Ground((), '', 'cpu', '', time.time())
    assert local.run_processes(['begun', 'waits', 'waits too'], ground, 1, bar) == ['begun']

@pytest.mark.parametrize('keep', [0, 1, .5, -1])
def test_truncated_record_is_set_aside(keep, tmp_path, short):
    shutil.copytree(short, tmp_path, dirs_exist_ok=True)
    f = of_margin(tmp_path)
    text = f.read_text()
    cut = text[:int(len(text)*keep) if isinstance(keep, float) else keep]
    f.write_text(cut)
    assert load_records(tmp_path)[1] == [f]
    for n in ('', 2): # a second one does not take the first one's place
        assert margin(tmp_path) == 0
        assert Path(f'{f}.damaged{n}').read_text() == cut
        assert_same(tmp_path, short)
        f.write_text(cut)

def test_record_of_another_seed_is_not_taken(tmp_path, short):
    f, other = of_margin(tmp_path), of_margin(tmp_path, seed=1)
    f.parent.mkdir()
    shutil.copy(of_margin(short), other)
    sweep(tmp_path, SHORT, ['margin'], 2)
    assert sorted(k[1] for k in by_run(tmp_path)) == [0, 1] and Path(f'{other}.damaged').exists()
    assert by_run(tmp_path)['margin', 0]['initial'] != by_run(tmp_path)['margin', 1]['initial']

def test_strangers_are_refused(tmp_path, short):
    home, record = of_margin(tmp_path).parent, read_json(of_margin(short))
    home.mkdir()
    renamed, larger = (record['protocol'] | change for change in (dict(name='dal-q7'), dict(scale='paper')))
    strangers = {'dal-q7': dict(protocol=renamed), 'at paper': dict(protocol=larger),
                 'other data': dict(data=record['data'] | dict(fingerprint='0123'))}
    for said, change in strangers.items():
        (home/'margin.json').write_text(json.dumps(record | change))
        with pytest.raises(ValueError, match=f'{said}.*choose another --out'): margin(tmp_path)
    assert [f.name for f in home.iterdir()] == ['margin.json']

def test_stale_record_is_kept_and_repeated_elsewhere(tmp_path, monkeypatch):
    p = SMOKE # as it stands in the protocols: else it were stale from the start
    margin(tmp_path, p)
    f, old = of_margin(tmp_path, p), of_margin(tmp_path, p).read_bytes()
    assert not table(tmp_path).stale.any()
    monkeypatch.setattr(REGISTRY['margin'], 'version', REGISTRY['margin'].version + 1)
    assert table(tmp_path).stale.all()
    assert margin(tmp_path, p) == 0
    new = of_margin(tmp_path, p)
    assert new != f and sorted(f.parent.iterdir()) == sorted([f, new]) and f.read_bytes() == old
    t = table(tmp_path)
    assert t.stale.sum() == (~t.stale).sum() == p.rounds + 1
    assert read_json(new)['rounds'][0]['picks'] == json.loads(old)['rounds'][0]['picks']
