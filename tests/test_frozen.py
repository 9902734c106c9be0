"The experiments on frozen features: through the console, at smoke, on the digits' own pixels"
from pathlib import Path
import numpy as np, pandas as pd, pytest
from al_repro.cli import main as cli
from al_repro.evidence.effects import made_up
from al_repro.evidence.scorecard import beyond, in_short
from al_repro.evidence.verdicts import verdicts
from al_repro.models.recipe import LAST, Recipe
from al_repro.papers.bal.claims import BAL_CLAIMS, FEATURE_CLAIMS
from al_repro.papers.bal.paper import counting
from al_repro.papers.features.claims import CIFAR, FEATURES_CLAIMS
from al_repro.papers.features.paper import EXPERIMENTS
from al_repro.papers.features.protocols import CANDIDATES, DEFAULT, L2, best_l2
from al_repro.query.spec import Spec
from al_repro.runs.paper import protocols
from al_repro.runs.protocol import Protocol
from al_repro.runs.records import load_records
from al_repro.runs.runner import run

RESULTS = Path(__file__).resolve().parent.parent/'results'

def test_reproduce_at_smoke(tmp_path, capsys):
    asked = ['reproduce', 'features', '--scale', 'smoke', '--workers', '1', '--quiet', '--out', str(tmp_path)]
    assert cli.main(asked) == 0
    out = capsys.readouterr().out
    assert 'features-tiny-digits-smoke' in out and 'random vs entropy' in out and 'BEYOND THE SOURCE' in out
    found, damaged = load_records(tmp_path)
    p, = protocols('features', 'digits', 'smoke')
    assert len(found) == 2*len(p.strategies) and not damaged and all(r['done'] for r in found)
    assert len({tuple(r['initial']) for r in found}) == 2 # two seeds, each with its own rows
    assert 'Strategies on frozen features' in (tmp_path/'report.html').read_text()

@pytest.mark.parametrize('name', [e.name for e in EXPERIMENTS[1:]])
def test_the_other_experiments_run(name, tmp_path):
    ps = protocols(name, 'digits', 'smoke')
    assert run(ps, tmp_path, seeds=1, workers=1, progress=False) == 0
    found = load_records(tmp_path)[0]
    assert len(found) == sum(len(p.strategies) for p in ps)
    if name == 'features-l2':
        small = [r for r in found if r['protocol']['name'].startswith('features-l2-small')]
        l2, labels = best_l2(small)
        assert l2 in CANDIDATES and labels == 50 + 30

def test_what_is_written_down_is_what_records_say():
    "The penalties of `L2` are those that the committed records choose"
    found = {}
    for r in [r for folder in RESULTS.glob('features-l2-*/') for r in load_records(folder)[0]]:
        budget = r['protocol']['name'].split('-')[2]
        found.setdefault((r['data']['name'], budget, r['protocol']['scale']), []).append(r)
    for (data, budget, scale), records in found.items():
        if scale == 'paper':
            p = next(p for p in protocols('features', data, scale) if p.name == f'features-{budget}')
            assert p.recipe.l2 == best_l2(records)[0], (data, budget)
    assert set(L2.values()) <= set(CANDIDATES) and DEFAULT in CANDIDATES

def test_claims_are_of_their_own_protocols():
    for c in FEATURES_CLAIMS:
        assert c.source == 'al_repro' and c.since and c.margins and c.protocol == c.needs == c.scope.protocols[0], c.id

# ---- BAL on the features of a frozen network

def test_bal_on_features_at_smoke(tmp_path):
    ps = protocols('bal-features', 'digits', 'smoke')
    assert run(ps, tmp_path, seeds=1, workers=1, progress=False) == 0
    found = load_records(tmp_path)[0]
    assert len(found) == sum(len(p.strategies) for p in ps) and all(r['done'] for r in found)
    assert not any('pretext' in r['protocol'] or 'assets' in r for r in found) # nothing was trained
    first = {r['label']: r['initial'] for r in found if r['protocol']['name'] == 'bal-features-base'}
    assert first['random'] == first['coreset'] != first['bal(beta=1.2, cycles=7)'] # BAL chooses its own

def test_bal_on_features_is_beyond_the_source():
    "Whatever comes out on features is shown beside BAL's claims and counted nowhere"
    home = dict(query=2000, data=CIFAR, scale='paper', rounds=6)
    t = made_up(dict(random=0, bal=5, coreset=1, entropy=1, least_confidence=1), 10, **home)
    t = t.assign(protocol='bal-features-base')
    v = verdicts(t, (*BAL_CLAIMS, *FEATURE_CLAIMS))
    judged = v[v.n > 0]
    assert set(judged.claim) == {'bal-13'} and not judged.inside.astype(bool).any()
    assert judged[judged.part == 'all'].verdict.tolist() == ['beyond the source: holds']
    only = dict(BAL=judged)
    assert in_short(only).empty and beyond(only)['hold'].sum() == 1
    r = dict(protocol=dict(name='bal-features-base', scale='paper'), data=dict(name=CIFAR), label='coreset')
    assert counting([r]) == [r] and counting([r | dict(label='margin')]) == []

def test_rows_stand_for_label_free_features_with_any_model(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    for part in ('', '_test'):
        np.save(tmp_path/f'features{part}.npy', (rng.normal(size=(120, 8)) + 3*np.eye(8)[y]).astype(np.float16))
        np.save(tmp_path/f'labels{part}.npy', y)
    specs = Spec.parse('activeft(steps=2)'), Spec.parse('bal(cycles=3)')
    for model, start in (('sklearn-logistic', 'own'), ('linear-head', 'shared')):
        recipe = Recipe(model, l2=.5*(model == 'linear-head'), **LAST)
        data = f'folder:{tmp_path}@features'
        p = Protocol(f'toy-{model}', data, 'smoke', 6, 6, 2, recipe, start=start, strategies=specs)
        assert run([p], tmp_path/'out', seeds=1, workers=1, progress=False) == 0
    found = load_records(tmp_path/'out')[0]
    assert len(found) == 4 and all(r['done'] for r in found)
