"The experiments on frozen features: through the console, at smoke, on the digits' own pixels"
from pathlib import Path
import pytest
from al_repro.cli import main as cli
from al_repro.papers.features.claims import FEATURES_CLAIMS
from al_repro.papers.features.paper import EXPERIMENTS
from al_repro.papers.features.protocols import CANDIDATES, DEFAULT, L2, best_l2
from al_repro.runs.paper import protocols
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
