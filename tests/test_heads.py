"All seeds of a head run as one group on a CPU: grouped, stopped, resumed, spread over workers and pilots"
from dataclasses import replace
import numpy as np, pytest
from al_repro.data.catalog import load
from al_repro.models.heads import fit_logistic
from al_repro.models.recipe import LAST, Recipe
from al_repro.query.spec import Spec
from al_repro.runs.group import Stopped, run_group
from al_repro.runs.jobs import in_parts, todo
from al_repro.runs.pilot import estimate
from al_repro.runs.protocol import Protocol
from al_repro.runs.records import load_records, same_run
from al_repro.runs.rounds import one_thread, replay
from al_repro.runs.runner import run

HEADS = dict(linear=Recipe('linear-head', l2=.05, **LAST), mlp=Recipe('mlp-head', steps=20, **LAST),
             bn=Recipe('bn-head', steps=20, warm=True, **LAST))
SPECS = ['random', 'margin', 'coreset']

def protocol(head='linear'): return Protocol('own', 'digits', 'quick', 20, 20, 3, HEADS[head], pool=1100, seeds=4)

def records(out): return {(r['label'], r['seed']): r for r in load_records(out)[0]}

@pytest.fixture(scope='module', params=HEADS)
def whole(request, tmp_path_factory):
    "A finished sweep of each head: protocol, folder"
    p, out = protocol(request.param), tmp_path_factory.mktemp(request.param)
    assert run([p], out, SPECS, workers=1, progress=False) == 0
    return p, out

def test_a_cell_is_one_group(whole, tmp_path):
    p, out = whole
    jobs, left = todo([p], [Spec(s) for s in SPECS], None, tmp_path, load('digits'), 'cpu')
    assert [j.seeds for j in jobs] == [[0, 1, 2, 3]] and left == 3*4*4
    assert len(in_parts(jobs, 2)) == 3 # workers share the strategies
    assert {tuple(r['members']) for r in records(out).values()} == {(0, 1, 2, 3)}
    assert len({r['initial'][0] for r in records(out).values()}) > 1 # each seed has its own pool

def test_it_is_resumed_to_the_same_bytes(whole, tmp_path):
    p, out = whole
    def stop(): raise Stopped
    for _ in range(2): # twice, a round at a time
        with one_thread(), pytest.raises(Stopped):
            run_group(p, Spec('coreset'), range(4), load('digits'), tmp_path, on_round=stop)
    assert {len(r['rounds']) for r in records(tmp_path).values()} == {2}
    assert run([p], tmp_path, ['coreset'], workers=1, progress=False) == 0
    for k, r in records(tmp_path).items(): assert same_run(r, records(out)[k])

def test_a_deadline_ends_it_after_a_round(whole, tmp_path):
    p, out = whole
    assert run([p], tmp_path, ['margin'], workers=1, progress=False, deadline=1e-3) == 4*3
    assert run([p], tmp_path, ['margin'], workers=1, progress=False) == 0
    for k, r in records(tmp_path).items(): assert same_run(r, records(out)[k])

def test_workers_give_the_same_records(whole, tmp_path, ready_workers):
    p, out = whole
    assert run([p], tmp_path, SPECS, workers=2, progress=False) == 0
    for k, r in records(tmp_path).items(): assert same_run(r, records(out)[k])

def test_later_seeds_are_a_group_of_their_own(whole, tmp_path):
    p, _ = whole
    for seeds in (2, 3): assert run([p], tmp_path, ['random'], seeds, workers=1, progress=False) == 0
    assert [r['members'] for _, r in sorted(records(tmp_path).items())] == [[0, 1], [0, 1], [2]]

def test_a_pilot_times_the_whole_group(whole, tmp_path):
    row, = estimate([whole[0]], [Spec('margin')], out=tmp_path)
    assert (row['runs'], row['rounds'], row['why']) == (4, 16, '')

def test_a_replay_of_one_seed_is_its_run_up_to_rounding():
    p, data = protocol(), load('digits')
    def one(out): return run([p], out, ['margin'], 1, workers=1, progress=False)
    import tempfile
    with tempfile.TemporaryDirectory() as out:
        assert one(out) == 0
        record, = load_records(out)[0]
    again = replay(record, p.recipe, data)
    assert [r['test_accuracy'] for r in again] == [r['test_accuracy'] for r in record['rounds']]

def test_many_members_agree_with_scikit_learn():
    "Stretched features, more of them than rows, members of other sizes"
    from sklearn.linear_model import LogisticRegression
    import torch
    rng = np.random.default_rng(0)
    for n, d, c, l2 in ((60, 200, 5, .5), (400, 40, 12, .005), (300, 30, 3, 5.)):
        y = np.stack([rng.permutation(np.arange(n) % c) for _ in range(3)])
        x = (rng.normal(size=(c, d))[y]*.3 + rng.normal(size=(3, n, d)))*np.logspace(0, -2, d)
        x = x.astype(np.float32)
        here = np.ones((3, n), np.float32)
        here[1, n//2:] = 0
        w, b, _, loss, converged = fit_logistic(*map(torch.as_tensor, (x, y)), c, l2, torch.as_tensor(here))
        assert converged.all()
        for i in range(3):
            own = here[i] > 0
            lib = LogisticRegression(C=1/(2*l2), tol=1e-8, max_iter=10_000)
            lib.fit(x[i, own].astype(float), y[i, own])
            log_p = lib.predict_log_proba(x[i, own])[np.arange(own.sum()), y[i, own]]
            gap = (loss[i].item() + log_p.sum() - l2*(lib.coef_**2).sum())/own.sum()
            assert abs(gap) < 1e-4, (n, d, i, gap)

def test_what_a_head_reads_are_features(tmp_path):
    "A strategy that needs features runs without a pretext task, and chooses its first batch where it may"
    p, spec = replace(protocol(), start='own', rounds=1, seeds=2), ['activeft(steps=3)']
    assert run([p], tmp_path, spec, workers=1, progress=False) == 0
    shared = run([replace(p, name='shared', start='shared')], tmp_path, spec, workers=1, progress=False)
    assert shared == 0
    first = {r['protocol']['name']: r['initial'] for r in load_records(tmp_path)[0] if r['seed'] == 0}
    assert sorted(first['own']) != sorted(first['shared'])
    with pytest.raises(ValueError, match='needs losses'): run([p], tmp_path, ['pt4al'], progress=False)

def test_a_recipe_without_a_penalty_is_refused():
    with pytest.raises(ValueError, match='choose a number above 0'): replace(HEADS['linear'], l2=0.)
