"""Packed records: every reader sees what it saw, and nothing is lost by a kill, a full disk or a damaged pack."""
import errno, json, os, random, shutil, signal
from pathlib import Path
import pytest
from al_repro.cli.main import main
from al_repro.data.catalog import load
from al_repro.runs.lock import InUse, OneWriter
from al_repro.runs.merge import merge
from al_repro.runs.pack import pack, unpack
from al_repro.runs.packed import PACK
from al_repro.runs.paper import protocols
from al_repro.runs.records import load_records, picks, read_json, table
from al_repro.runs.runner import run
from al_repro.runs.study import STUDY_COLUMNS, Study, run_study, study_records, study_table

COMMITTED = Path(__file__).resolve().parent/'records'
SMOKE = protocols('dal', 'digits', 'smoke')[0]
SPECS = [s for s in SMOKE.strategies if s.name in ('margin', 'coreset', 'dal')] # of the committed runs


@pytest.fixture
def out(tmp_path):
    "A copy of the committed runs, all finished"
    return Path(shutil.copytree(COMMITTED, tmp_path/'runs'))

@pytest.fixture
def home(out): return next(f for f in out.iterdir() if f.is_dir())

def bytes_of(folder): return {f.name: f.read_bytes() for f in Path(folder).iterdir()}

def shorter(f):
    "Take the last round of a record away"
    r = json.loads(f.read_text())
    f.write_text(json.dumps(r | dict(rounds=r['rounds'][:-1], done=False)))

def again(out, seeds=1): return run([SMOKE], out, SPECS, seeds, workers=1, progress=False)


# ---- there and back

def test_the_same_bytes_come_back(out, home):
    before = bytes_of(home)
    x, = pack(out)
    assert (x.runs, x.files, x.left, x.damaged) == (len(before), sum(map(len, before.values())), 0, [])
    assert list(bytes_of(home)) == [PACK] and x.size == (home/PACK).stat().st_size < x.files
    assert unpack(out)[0].runs == len(before) and bytes_of(home) == before and not list(out.glob('.*'))

def test_the_same_records_give_the_same_pack(out, home, tmp_path):
    a, b, c = sorted(home.glob('*.json'))
    pack(out)
    first, when = (home/PACK).read_bytes(), (home/PACK).stat().st_mtime_ns
    pack(out) # nothing new: not even written
    assert (home/PACK).stat().st_mtime_ns == when
    unpack(out)
    for f in (c, b): shutil.move(f, tmp_path/f.name) # in two steps, with other modes and times
    assert pack(out)[0].runs == 1
    for f in (c, b):
        shutil.move(tmp_path/f.name, f)
        os.utime(f, (0, 0))
        f.chmod(0o600)
    pack(out)
    assert bytes_of(home) == {PACK: first}

def test_other_programs_can_read_it(out, home, tmp_path):
    before = bytes_of(home)
    pack(out)
    shutil.unpack_archive(home/PACK, tmp_path/'by_hand')
    assert bytes_of(tmp_path/'by_hand') == before


# ---- what stays a file

def test_unfinished_and_strange_ones_stay(out, home):
    a, b, c = sorted(home.glob('*.json'))
    shorter(a)
    shutil.copy(b, home/'other-name.json')
    b.unlink()
    (home/'notes.json').write_text('{}')
    (home/'notes.txt').write_text('mine')
    (home/f'{c.name}.damaged').write_text('{')
    stays = {n: x for n,x in bytes_of(home).items() if n != c.name}
    x, = pack(out)
    after = bytes_of(home)
    assert after.pop(PACK) and after == stays and (x.runs, x.left) == (1, 3)
    with pytest.raises(ValueError, match='same run, which would count twice'): # as it would without the pack
        shutil.copy(home/'other-name.json', b)
        load_records(out)

def test_a_group_is_packed_when_all_of_it_is_finished(out, home):
    "Where seeds go on together, a finished one may be written again"
    f = sorted(home.glob('*.json'))[0]
    r = json.loads(f.read_text())
    other = home/f.name.replace('-0.json', '-1.json')
    for path, seed in ((f, 0), (other, 1)): path.write_text(json.dumps(r | dict(seed=seed, members=[0, 1])))
    shorter(other)
    pack(out)
    assert f.exists() and other.exists() and len(load_records(out)[0]) == 4
    other.write_text(json.dumps(r | dict(seed=1, members=[0, 1])))
    assert pack(out)[0].runs == 4 and not f.exists()


# ---- all readers

def test_readers_see_the_same(out, home, tmp_path, capsys):
    def seen(page):
        assert main(['report', str(out), '--out', str(page)]) == 0
        text = capsys.readouterr().out.replace(str(page), '')
        y = load('digits').y.numpy()
        return load_records(out), table(out).to_csv(), picks(out, y).to_csv(), text, (page/'report.html').read_bytes()
    before = seen(tmp_path/'a')
    pack(out)
    assert seen(tmp_path/'b') == before and list(bytes_of(home)) == [PACK]
    f = min((COMMITTED/home.name).glob('*.json'))
    shutil.copy(f, home/f.name) # in both forms: it counts once
    assert load_records(out) == before[0] and table(out).to_csv() == before[1]

def test_a_packed_run_is_not_repeated(out, home):
    pack(out)
    before = bytes_of(home)
    assert again(out) == 0 and bytes_of(home) == before
    old = {r['label']: r for r in load_records(out)[0]}
    assert run([SMOKE], out, ['margin', 'random'], 2, workers=1, progress=False) == 0 # more seeds, more strategies
    beside = sorted(f.name.split('-')[0] + f.stem[-2:] for f in home.glob('*.json'))
    assert beside == ['margin-1', 'random-0', 'random-1'] and (home/PACK).read_bytes() == before[PACK]
    found, damaged = load_records(out)
    assert len(found) == 6 and not damaged and all(r in found for r in old.values())
    order = [(r['label'], r['seed']) for r in found]
    assert pack(out)[0].runs == 6 and [(r['label'], r['seed']) for r in load_records(out)[0]] == order
    assert list(bytes_of(home)) == [PACK]

def test_an_unfinished_run_goes_on_beside_the_pack(out, home):
    f = next(home.glob('margin*'))
    shorter(f)
    pack(out)
    assert again(out) == 0 and read_json(f)['done'] and pack(out)[0].runs == 3 and not f.exists()

def test_strangers_in_a_pack_are_refused(out, home):
    for f in home.glob('*.json'):
        r = json.loads(f.read_text())
        f.write_text(json.dumps(r | dict(data=r['data'] | dict(fingerprint='0123'))))
    pack(out)
    with pytest.raises(ValueError, match='other data.*choose another --out'): again(out)

def test_merge_takes_both_forms(out, home, tmp_path):
    plain = Path(shutil.copytree(out, tmp_path/'plain'))
    other = min((plain/home.name).glob('*.json')) # the same run, which took another time
    r = json.loads(other.read_text())
    for x in r['rounds']: x['seconds'] = dict(x['seconds'], fit=9.)
    other.write_text(json.dumps(r))
    before = bytes_of(home)
    pack(out)
    assert merge([out], tmp_path/'all') == (3, []) and bytes_of(tmp_path/'all'/home.name) == before
    packed = bytes_of(home)
    assert merge([plain], out) == (3, []) and bytes_of(home) == packed # what the pack holds stands

TOY = Study('toy', 'test_pack:measure', 'for tests')
def measure(seed): return dict(x=float(seed))

def test_studies(tmp_path, monkeypatch):
    from al_repro.runs import study
    monkeypatch.setattr(study, 'studies', lambda: dict(toy=TOY))
    monkeypatch.setattr(Study, 'function', property(lambda self: measure))
    measured = dict(seeds=3, workers=1, progress=False)
    assert run_study(TOY, tmp_path, **measured) == 0
    before, files = study_table(tmp_path), bytes_of(tmp_path/'study-toy-quick')
    assert pack(tmp_path)[0].runs == 3 and list(bytes_of(tmp_path/'study-toy-quick')) == [PACK]
    assert study_table(tmp_path).equals(before) and list(before) == STUDY_COLUMNS
    assert run_study(TOY, tmp_path, **measured) == 0 and list(bytes_of(tmp_path/'study-toy-quick')) == [PACK]
    assert load_records(tmp_path) == ([], [])
    assert merge([tmp_path], tmp_path/'all')[0] == 3
    assert bytes_of(tmp_path/'all'/'study-toy-quick') == files
    bad = tmp_path/'study-toy-quick'/PACK
    bad.write_bytes(bad.read_bytes()[:-9])
    assert study_records(tmp_path/'study-toy-quick') == ([], [bad])
    assert run_study(TOY, tmp_path, **measured) == 0 and Path(f'{bad}.damaged').exists()
    assert len(study_records(tmp_path/'study-toy-quick')[0]) == 3


# ---- two forms that differ, damage

def test_two_forms_that_differ_are_named(out, home):
    f = min(home.glob('*.json'))
    text = f.read_text()
    pack(out)
    f.write_text(text + ' ') # even so little
    both = f'{f} and {home/PACK/f.name} are the same run with different content; keep the one you trust.*zip -d'
    for call in (load_records, table, pack, unpack, again, lambda out: merge([out], out/'all')):
        with pytest.raises(ValueError, match=both): call(out)
    assert f.read_text() == text + ' ' and (home/PACK).exists()

@pytest.mark.parametrize('how', ['cut', 'no pack', 'empty', 'head'])
def test_a_damaged_pack_is_named_and_set_aside(how, out, home):
    pack(out)
    raw = (home/PACK).read_bytes()
    bad = {'cut': raw[:-40], 'no pack': b'{"a": 1}', 'empty': b'', 'head': raw[100:]}[how]
    (home/PACK).write_bytes(bad)
    assert load_records(out) == ([], [home/PACK])
    assert unpack(out)[0].damaged == [home/PACK] and (home/PACK).read_bytes() == bad
    assert run([SMOKE], out, ['margin'], 1, workers=1, progress=False) == 0 # it counts as not run
    assert (home/f'{PACK}.damaged').read_bytes() == bad and not (home/PACK).exists()
    assert [r['label'] for r in load_records(out)[0]] == ['margin'] and load_records(out)[1] == []
    (home/PACK).write_bytes(bad)
    assert pack(out)[0].runs == 1 and (home/f'{PACK}.damaged').read_bytes() == bad
    assert not (home/f'{PACK}.damaged2').exists() # the same bytes once

def test_a_damaged_pack_alone_is_set_aside(out, home, capsys):
    for f in home.glob('*.json'): f.unlink()
    (home/PACK).write_bytes(b'junk')
    assert main(['pack', str(out)]) == 0
    assert f'damaged:\n  {home/PACK}' in capsys.readouterr().out and list(bytes_of(home)) == [f'{PACK}.damaged']

@pytest.mark.parametrize('then', ['pack', 'unpack', 'run'])
def test_a_damaged_member_costs_one_run(then, out, home):
    files = bytes_of(home)
    pack(out)
    raw = bytearray((home/PACK).read_bytes())
    lost = min(files)
    raw[200] ^= 4 # within the first member
    (home/PACK).write_bytes(raw)
    found, damaged = load_records(out)
    assert len(found) == 2 and damaged == [home/PACK/lost]
    if then == 'run':
        assert again(out) == 0 and [f.name for f in home.glob('*.json')] == [lost]
        assert len(load_records(out)[0]) == 3 and load_records(out)[1] == [home/PACK/lost] # until it is packed
        assert pack(out)[0].runs == 3
    else:
        x, = dict(pack=pack, unpack=unpack)[then](out)
        assert x.runs == 2 and x.damaged[0] == home/PACK/lost
    assert (home/f'{PACK}.damaged').read_bytes() == raw and load_records(out)[1] == []
    if then == 'unpack': assert {n: files[n] for n in files if n != lost}.items() <= bytes_of(home).items()

def test_no_byte_changes_a_record_unnoticed(out, home):
    right = load_records(out)[0]
    pack(out)
    raw, rng = (home/PACK).read_bytes(), random.Random(0)
    for i in sorted(rng.sample(range(len(raw)), 60)):
        (home/PACK).unlink()
        (home/PACK).write_bytes(raw[:i] + bytes([raw[i] ^ 1 << rng.randrange(8)]) + raw[i + 1:])
        found, damaged = load_records(out)
        assert all(r in right for r in found) and (len(found) == 3 or damaged), i

def test_a_damaged_file_does_not_compete(out, home):
    f = min(home.glob('*.json'))
    text = f.read_text()
    pack(out)
    f.write_text(text[:99])
    assert len(load_records(out)[0]) == 3 and load_records(out)[1] == [f]
    unpack(out)
    assert f.read_text() == text and Path(f'{f}.damaged').read_text() == text[:99]


# ---- kills, full disks, other writers

STEPS = [('fsync', 'before'), ('fsync', 'after'), ('replace', 'before'), ('replace', 'after'), ('unlink', 'before')]

def killed(step, when, n, f):
    "A fork that kills itself at the n-th call of os.step; whether it came to that"
    pid = os.fork()
    if not pid:
        real, count = getattr(os, step), [0]
        def new(*args, **kwargs):
            count[0] += 1
            if count[0] == n and when == 'before': os.kill(os.getpid(), signal.SIGKILL)
            real(*args, **kwargs)
            if count[0] == n: os.kill(os.getpid(), signal.SIGKILL)
        setattr(os, step, new)
        try: f()
        finally: os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

@pytest.mark.skipif(os.name != 'posix', reason='kill -9 and fork')
@pytest.mark.parametrize('step, when', STEPS)
@pytest.mark.parametrize('do', [pack, unpack])
def test_killed_anywhere(do, step, when, out, home, tmp_path):
    files, right = bytes_of(home), load_records(out)
    late = max(files)
    shutil.move(home/late, tmp_path/late)
    pack(out)
    shutil.move(tmp_path/late, home/late) # so that one pack takes the place of another
    if do is unpack: pack(out)
    begun, n = bytes_of(home), 1
    while killed(step, when, n, lambda: do(out)):
        assert load_records(out) == right
        do(out)
        after = bytes_of(home)
        assert load_records(out) == right and (set(after) == {PACK} if do is pack else after == files)
        shutil.rmtree(home)
        home.mkdir()
        for name, raw in begun.items(): (home/name).write_bytes(raw)
        n += 1
    assert n > 1

@pytest.mark.parametrize('where', ['fsync', 'replace'])
@pytest.mark.parametrize('do', [pack, unpack])
def test_disk_full(do, where, out, home, monkeypatch):
    if do is unpack: pack(out)
    before, calls, real = bytes_of(home), [], getattr(os, where)
    def fails(*args):
        calls.append(args)
        if len(calls) == 1 + (do is unpack): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)
    with monkeypatch.context() as m:
        m.setattr(os, where, fails)
        with pytest.raises(OSError, match='cannot write .*No space.*make room and call al_repro pack again'): do(out)
    assert bytes_of(home) == before and not list(out.glob('.*'))
    do(out)
    assert bytes_of(home) != before

def test_a_pack_that_does_not_read_back_is_not_taken(out, home, monkeypatch):
    from al_repro.runs import pack as module
    before, real = bytes_of(home), module.write_pack
    def spoilt(path, contents): real(path, contents | {min(contents): b'{}'})
    monkeypatch.setattr(module, 'write_pack', spoilt)
    with pytest.raises(OSError, match='does not read back'): pack(out)
    assert bytes_of(home) == before

@pytest.mark.parametrize('given', ['runs', 'runs/own'])
def test_a_running_sweep_refuses(given, out, home, tmp_path, capsys):
    home.rename(out/'own')
    with OneWriter(out) as sweep:
        sweep.take()
        with pytest.raises(InUse, match=f'{out} is being written by process {os.getpid()}.*wait until it ends'):
            pack(tmp_path/given)
        assert main(['pack', str(tmp_path/given)]) == 2 and f'process {os.getpid()}' in capsys.readouterr().err
    assert not (out/'own'/PACK).exists() and pack(tmp_path/given)[0].runs == 3

def test_packed_while_it_is_read(out, home, monkeypatch):
    "Readers ask for no lock"
    from al_repro.runs import packed
    right, real = load_records(out), packed.read_forms
    for do in (pack, unpack):
        def late(paths, read):
            monkeypatch.setattr(packed, 'read_forms', real)
            do(out)
            return real(paths, read)
        monkeypatch.setattr(packed, 'read_forms', late)
        assert load_records(out) == right

def test_errors_name_the_folder(tmp_path, capsys):
    (tmp_path/'empty').mkdir()
    for folder, said in ((tmp_path/'nowhere', 'no folder'), (tmp_path/'empty', 'no records in')):
        assert main(['pack', str(folder)]) == 2
        err = capsys.readouterr().err
        assert said in err and str(folder) in err and 'pass the --out folder' in err

def test_rerun_refuses_a_packed_folder_of_its_own(out, tmp_path):
    import importlib.util
    path = COMMITTED.parent.parent/'tools'/'rerun.py'
    spec = importlib.util.spec_from_file_location('rerun', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    kept = Path(shutil.copytree(out, tmp_path/'kept'))
    pack(kept)
    with pytest.raises(SystemExit, match=f'--keep {kept} holds packed records.*--unpack'):
        tool.main([str(out), '--keep', str(kept)])
