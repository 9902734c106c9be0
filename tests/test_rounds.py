"The loop that a person would write, for every strategy: `round` counts 0, 1, 2, ... whoever chose the first batch"
import pytest
from al_repro.query.query import Query
from al_repro.query.spec import build, known
from al_repro.query.contract import sample_arrays

CYCLES, K = 4, 5
OPTIONS = dict(bal=f'cycles={CYCLES}', pt4al=f'cycles={CYCLES}', activeft='steps=5')

def play(name, first=(), rounds=CYCLES, **how): # picks and logged cycles of each round
    a = sample_arrays()
    s, labelled, picks, cycles = build(f'{name}({OPTIONS[name]})'), list(first), [], []
    for r in range(rounds):
        given = {k: a[k] for k in ('features', 'losses', 'probs')}
        q = Query.from_arrays(**given, labelled=labelled, round=r, seed=[1, r], **how)
        ids = s(q, K)
        labelled += ids.tolist()
        picks.append(ids)
        logged = next((e['cycle'] for e in q.log if 'cycle' in e), None)
        cycles.append(q.batches(K) if len(labelled) == K else logged)
    assert len(set(labelled)) == len(labelled)
    return picks, cycles

@pytest.mark.parametrize('name', OPTIONS)
def test_own_first_batch(name):
    picks, cycles = play(name)
    if name != 'activeft': assert cycles[1:] == [1, 2, 3] # no part of the pool is skipped
    said = play(name, start='own')[0]
    assert all((p == s).all() for p,s in zip(picks, said))

@pytest.mark.parametrize('name', OPTIONS)
def test_first_batch_from_outside(name):
    cycles = play(name, first=[2, 11, 40], rounds=CYCLES - 1)[1]
    if name != 'activeft': assert cycles == [1, 2, 3]
    cycles = play(name, first=[2, 11, 40], rounds=CYCLES - 1, start='shared')[1]
    if name != 'activeft': assert cycles == [1, 2, 3]

def test_all_that_read_round_are_here():
    "A strategy that asks which batch this is must be in the table above"
    import inspect, re
    reads = {n for n,s in known().items() if re.search(r'\.round\b|\.batches\(', inspect.getsource(inspect.unwrap(s)))}
    assert {'bal', 'pt4al'} <= reads <= set(OPTIONS), reads

@pytest.mark.parametrize('name', ['bal', 'pt4al'])
def test_mini_queries_of_an_own_start(name):
    "What is only pretended to be labelled is no batch"
    from al_repro.query.strategy import in_steps
    a = sample_arrays()
    s = in_steps(build(f'{name}({OPTIONS[name]})'), 2)
    ids = s(Query.from_arrays(features=a['features'], losses=a['losses'], n_classes=4), 6)
    assert len(set(ids.tolist())) == 6
