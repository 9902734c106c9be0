"""Runs on a second device (falsecuda.py): seeds are added, assets are compared, what knows no GPU stays on the CPU."""
import json

import numpy as np, pytest
import falsecuda
from al_repro.models.assets import asset_path, read_npz, write_npz
from al_repro.data.catalog import load
from al_repro.cli import main as cli
from al_repro.runs import starts
from al_repro.runs.paper import protocols
from al_repro.runs.records import load_records, read_json
from al_repro.runs.group import Stopped, run_group
from al_repro.runs.runner import run
from al_repro.query.spec import Spec

why = f'torch has no {", ".join(falsecuda.MISSING)}'
needs_device = pytest.mark.skipif(bool(falsecuda.MISSING), reason=why)
SMOKE = 'reproduce dal --scale smoke --device cuda --strategies random --quiet --out'.split()

@pytest.fixture
def assets(tmp_path, monkeypatch):
    monkeypatch.setenv('AL_REPRO_ASSETS', str(tmp_path/'assets'))
    starts._prepared.cache_clear()
    yield tmp_path/'assets'
    starts._prepared.cache_clear()

def by_seed(folder): return {r['seed']: r for r in load_records(folder)[0]}

@needs_device
def test_seeds_are_added_on_a_gpu(tmp_path, capsys):
    "Finished runs stay as they are; the new seeds are a group of their own"
    with falsecuda.false_cuda():
        assert cli.main([*SMOKE, str(tmp_path), '--seeds', '1']) == 0
        first, = tmp_path.glob('dal*/*.json')
        before = first.read_bytes()
        assert cli.main([*SMOKE, str(tmp_path), '--seeds', '3']) == 0, capsys.readouterr().err
    assert first.read_bytes() == before
    assert {s: r['members'] for s,r in by_seed(tmp_path).items()} == {0: [0], 1: [1, 2], 2: [1, 2]}
    assert all(r['done'] for r in by_seed(tmp_path).values())

@needs_device
def test_a_group_goes_on_as_it_began(tmp_path):
    "Seeds stopped together go on together, whatever number is asked for now"
    p = protocols('dal', 'digits', 'smoke')[0]
    with falsecuda.false_cuda():
        data = load('digits').to('cuda')
        def stop(): raise Stopped
        with pytest.raises(Stopped): run_group(p, Spec.make('random'), [0, 1], data, tmp_path, on_round=stop)
        assert run([p], tmp_path, ['random'], 3, device='cuda', progress=False) == 0
    assert {s: r['members'] for s,r in by_seed(tmp_path).items()} == {0: [0, 1], 1: [0, 1], 2: [2]}

@needs_device
def test_deterministic_runs_say_so(tmp_path, capsys):
    with falsecuda.false_cuda():
        assert cli.main([*SMOKE, str(tmp_path), '--seeds', '1', '--deterministic']) == 0
        assert by_seed(tmp_path)[0]['deterministic'] is True and '--deterministic' in capsys.readouterr().out
        f, = tmp_path.glob('dal*/*.json')
        r = read_json(f)
        starts_again = {**r, 'rounds': r['rounds'][:1], 'done': False}
        f.write_text(json.dumps(starts_again))
        assert cli.main([*SMOKE, str(tmp_path), '--seeds', '1']) == 4 # as for whatever cannot go on
        assert 'was begun with --deterministic' in capsys.readouterr().err

@needs_device
def test_scikit_learn_keeps_the_cpu_and_its_workers(tmp_path, capsys):
    args = ['reproduce', 'diverse-minibatch', *'--scale smoke --device auto --strategies random --seeds 2'.split(),
            *'--workers 2 --quiet --out'.split()]
    with falsecuda.false_cuda(): assert cli.main([*args, str(tmp_path)]) == 0
    assert {r['device'] for r in load_records(tmp_path)[0]} == {'cpu'}
    assert 'on cpu with 2 workers' in capsys.readouterr().out

@needs_device
def test_select_and_study_take_a_device(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save('e.npy', np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    (tmp_path/'ids.txt').write_text('0\n1\n')
    with falsecuda.false_cuda() as ran:
        assert cli.main('select --embeds e.npy --labelled ids.txt --strategy coreset --k 5 --device cuda'.split()) == 0
        on_gpu, used = capsys.readouterr().out, dict(ran['cuda'])
    assert cli.main('select --embeds e.npy --labelled ids.txt --strategy coreset --k 5'.split()) == 0
    assert capsys.readouterr().out == on_gpu and 'addmm' in used


# ---- assets

def test_a_run_refuses_assets_of_another_content(tmp_path, assets):
    "Features trained anew have the same identity and other last bits"
    p, data = protocols('bal', 'digits', 'smoke')[0], load('digits')
    spec = Spec.parse('bal(cycles=3)')
    def stop(): raise Stopped
    with pytest.raises(Stopped): run_group(p, spec, [0], data, tmp_path/'out', on_round=stop)
    file = asset_path(assets, data, p.pretext)
    what, arrays = read_npz(file)
    kept = file.read_bytes()
    arrays['features'] = np.nextafter(arrays['features'], np.float32(np.inf))
    write_npz(file, what, **arrays)
    starts._prepared.cache_clear()
    with pytest.raises(ValueError, match='begun with pretext features of content .* bring back the file of then'):
        run_group(p, spec, [0], data, tmp_path/'out')
    file.write_bytes(kept)
    starts._prepared.cache_clear()
    r, = run_group(p, spec, [0], data, tmp_path/'out')
    assert r['done'] and set(r['assets']) == {'pretext', 'content'}

def test_a_record_without_a_digest_is_taken_at_its_word(tmp_path, assets):
    p, data = protocols('bal', 'digits', 'smoke')[0], load('digits')
    starts.same_assets(dict(assets=dict(pretext='8e7baf741160')), p, data, 'it')
    with pytest.raises(ValueError, match='content 0'): starts.same_assets(dict(assets=dict(content='0')), p, data, 'it')
