"Claims against the committed records: scopes, days, and the correction for many comparisons"
from pathlib import Path

import pandas as pd, pytest

from al_repro.query.spec import Spec
from al_repro.runs import group, records
from al_repro.papers.bal.claims import BAL_CLAIMS, FEATURE_CLAIMS
from al_repro.evidence.claims import Claim, MARGINS_SINCE, Part, base_name, written
from al_repro.evidence.combine import HOW
from al_repro.papers.dal.claims import DAL_CLAIMS
from al_repro.papers.diverse.claims import DIVERSE_CLAIMS
from al_repro.papers.features.claims import FEATURES_CLAIMS
from al_repro.evidence.effects import runs
from al_repro.evidence.verdicts import verdicts
from al_repro.runs.packed import json_of, read_paths, record_paths
from al_repro.runs.paper import protocols
from al_repro.evidence.scorecard import all_verdicts, in_short
from al_repro.runs.study import measure_seed, Study
from al_repro.evidence.verdicts import overall

RESULTS = Path(__file__).resolve().parent.parent/'results'
CLAIMS = {c.id: c for c in (*DAL_CLAIMS, *DIVERSE_CLAIMS, *BAL_CLAIMS, *FEATURE_CLAIMS, *FEATURES_CLAIMS)}

@pytest.fixture(scope='module')
def found(): return all_verdicts(RESULTS)

@pytest.fixture(scope='module')
def rows(found): return pd.concat(found.values(), ignore_index=True)

# ---- days

@pytest.fixture(scope='module')
def days(): # of every cell, read off the records
    "(protocol, data, scale) -> days on which its runs began, '' for one without."
    res = {}
    for f, r in read_paths(record_paths(RESULTS), json_of):
        p = r.get('protocol') or dict(name=f"study-{r['study']}", scale=r['scale'])
        name = 'bal-pretext' if p['name'].startswith('bal-pretext') else p['name']
        res.setdefault((name, r['data']['name'] or 'synthetic', p['scale']), set()).add(r['versions'].get('begun', ''))
    return res

def test_claims_are_dated_and_say_of_what_they_speak():
    for c in CLAIMS.values(): assert c.since and c.scope.data and c.scope.says, c.id

def test_verdicts_say_which_came_first(rows, days):
    judged = rows[rows.part.isin(HOW) & (rows.n > 0)]
    assert len(judged) > 30
    for r in judged.itertuples():
        begun = days[r.protocol, r.data, r.scale]
        if begun == {''}: assert r.written == 'its runs are undated', r
        elif '' not in begun: assert r.written == written([CLAIMS[r.claim].since, MARGINS_SINCE], sorted(begun)), r

@pytest.mark.parametrize('begun, said', [
    ('2026-12-01', 'before its runs'), ('2026-11-28', 'before its runs'), ('2026-11-27', 'after its runs'),
    ('', 'its runs are undated')])
def test_a_claim_is_compared_with_the_day_of_its_runs(begun, said):
    t = runs(dict(random=[50, 60, 70, 40, 55], dal=[51, 62, 73, 44, 60])).assign(begun=begun)
    assert set(verdicts(t, [Claim('toy', '', '', (('dal', 'random'),), since='2026-11-28')]).written) == {said}

def test_a_margin_has_a_day_too(monkeypatch):
    monkeypatch.setattr('al_repro.evidence.compare.MARGINS_SINCE', '2026-12-24')
    t = runs(dict(random=[50, 60, 70, 40, 55], dal=[51, 62, 73, 44, 60])).assign(begun='2026-12-01')
    claim = Claim('toy', '', '', (('dal', 'random'),), since='2026-11-28')
    assert set(verdicts(t, [claim]).written) == {'after its runs'}
    own = Claim('toy', '', '', (Part('dal', 'random', margin=1.),), since='2026-11-28')
    assert set(verdicts(t, [own]).written) == {'before its runs'}

def test_a_run_keeps_the_day_on_which_it_began(tmp_path, monkeypatch):
    from al_repro.data.catalog import load
    data, p, spec = load('digits'), protocols('dal', 'digits', 'smoke')[0], Spec.make('random')
    begin = lambda day: monkeypatch.setattr(records, 'today', lambda: day)
    def stop(): raise group.Stopped
    begin('2026-12-01')
    with pytest.raises(group.Stopped): group.run_group(p, spec, [0], data, tmp_path, on_round=stop)
    begin('2026-12-02')
    resumed, = group.run_group(p, spec, [0], data, tmp_path)
    assert resumed['done'] and resumed['versions']['begun'] == '2026-12-01'
    again, = group.run_group(p, spec, [0], data, tmp_path/'anew')
    assert again['versions']['begun'] == '2026-12-02'
    assert records.same_run(resumed, again) # no day is part of an identity
    assert set(records.table(tmp_path/p.folder).begun) == {'2026-12-01'}

def number(seed): return dict(x=1.)

def test_a_study_is_dated():
    study = Study('toy', f'{__name__}:number', 'a toy')
    assert measure_seed(study, 'quick', 0)['versions']['begun'] == records.today()

# ---- scope

def test_nothing_beyond_its_source_is_counted(found, rows):
    for r in rows[rows.n > 0].itertuples():
        claim = CLAIMS[r.claim]
        inside = claim.scope.has_data(r.data) if claim.study else claim.scope.has(r.protocol, r.data)
        assert r.inside == inside, r
    counts = in_short(found)
    inside = pd.concat([overall(v[v.inside.astype(bool)]) for v in found.values()])
    assert counts.drop(columns='not run').sum().sum() == (inside.outcome != 'not run').sum()
    assert ('BAL', 'mnist', 'quick') not in counts.index # the paper has no MNIST

def test_claims_that_exclude_each_other_share_no_data():
    for a, b in (('diverse-2', 'diverse-5'), ('diverse-4', 'diverse-8')):
        assert not set(CLAIMS[a].scope.data) & set(CLAIMS[b].scope.data)

def test_rivals_are_those_of_the_data_set(rows):
    def own(data):
        of_data = rows[(rows.claim == 'bal-1') & (rows.data == data) & ~rows.part.isin(HOW)]
        return set(of_data[of_data.counts.astype(bool)].b.map(base_name))
    assert 'vaal' in own('cifar10-jpeg') and 'vaal' not in own('caltech101-96')

# ---- many comparisons

def outcome(rows, claim, protocol, data):
    mine = (rows.claim == claim) & (rows.protocol == protocol) & (rows.data == data)
    return rows[mine & rows.part.isin(HOW)].outcome.item()

def test_one_unlucky_interval_sinks_no_claim(rows):
    assert outcome(rows, 'dal-1', 'dal-q10', 'mnist') == 'undecided'
    assert outcome(rows, 'diverse-9', 'diverse-minibatch-sklearn', 'mnist') == 'undecided'
    assert outcome(rows, 'bal-2', 'bal-small', 'mnist') == 'undecided'
    whole = overall(rows[(rows.claim == 'dal-1') & (rows.data == 'mnist')])
    assert whole.outcome.item() == 'undecided' # over all three query sizes

def test_a_comparison_of_pretext_tasks_counts_networks(rows):
    r = rows[(rows.claim == 'bal-8') & (rows.data == 'mnist')]
    assert (r.n == 1).all() and set(r.outcome) == {'description only'}

def test_no_command_of_more_than_a_hundred_hours(rows):
    assert not (rows.hours > 100)[rows.command != ''].any()

def test_the_headline_for_large_batches(rows):
    assert outcome(rows, 'dal-9', 'dal-q1000', 'mnist') == 'holds'
    parts = rows[(rows.claim == 'dal-8') & ~rows.part.isin(HOW)]
    assert outcome(rows, 'dal-8', 'study-density', 'synthetic') == 'depends'
    assert {'holds', 'does not hold'} <= set(parts.outcome)
