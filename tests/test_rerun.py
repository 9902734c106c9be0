"tools/rerun.py: committed runs come out again, ties are told from rounding, finished cells are not repeated"
import copy, importlib.util, json
from pathlib import Path
import numpy as np
import pytest
from al_repro.query.strategy import REGISTRY, by_score
from al_repro.query.spec import Spec
from al_repro.runs.paper import protocols
from al_repro.runs.records import load_records
from al_repro.runs.runner import run

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location('rerun_tool', HERE.parent/'tools'/'rerun.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
SMOKE = protocols('dal', 'digits', 'smoke')[0]

@pytest.fixture
def tied():
    "A strategy to which all rows are alike"
    yield by_score(lambda query: np.zeros(len(query.unlabelled)), 'all_alike')
    REGISTRY.pop('all_alike')

@pytest.mark.parametrize('name', ['margin', 'coreset'])
def test_a_committed_run_comes_out_again(name, tmp_path):
    record, = [r for r in load_records(HERE/'records')[0] if r['spec']['name'] == name]
    row = tool.rerun(record, tmp_path, None)
    assert row['outcome'] in ('same', 'rounding'), row # the latter on another processor
    other = copy.deepcopy(record)
    picks = record['rounds'][1]['picks']
    other['rounds'][1]['picks'][0] = next(i for i in range(record['data']['n']) if i not in picks)
    row = tool.rerun(other, tmp_path, None) # a record that no run gives: not the fault of ties
    assert row['outcome'] == 'rounding' and row['picks'] >= 1 and row['rounds'] == len(record['rounds'])

def test_a_run_that_has_left_its_record_ends_early(tmp_path):
    record, = [r for r in load_records(HERE/'records')[0] if r['spec']['name'] == 'margin']
    for r in record['rounds']: r['picks'] = sorted(r['picks'])[::-1] # no strategy picks in that order
    row = tool.rerun(record, tmp_path, None, after=1)
    assert (row['outcome'], row['round'], row['rounds']) == ('rounding', 0, 1)
    assert 'no ties in 1 rounds' in tool.line(row)
    with pytest.raises(SystemExit, match='--after 0'): tool.main([str(HERE/'records'), '--after', '0'])

def test_ties_are_told_from_rounding(tied, tmp_path):
    spec = Spec.make('all_alike')
    with tool.ties_to_smaller_ids(): run([SMOKE], tmp_path/'old', [spec], seeds=1, workers=1, progress=False)
    record, = load_records(tmp_path/'old')[0]
    assert record['rounds'][0]['picks'] == sorted(record['rounds'][0]['picks'])
    row = tool.rerun(record, tmp_path/'new', None)
    assert (row['outcome'], row['round'], row['else_recorded']) == ('ties', 0, True) and row['picks'] > 0
    run([SMOKE], tmp_path/'now', [Spec.make('all_alike')], seeds=1, workers=1, progress=False)
    assert tool.rerun(load_records(tmp_path/'now')[0][0], tmp_path/'new', None)['outcome'] == 'same'

def test_finished_cells_are_not_repeated(tmp_path, capsys):
    records, left = tool.cells(HERE/'records', 0)
    assert len(records) == 3 and not left
    assert [tool.seconds_of(r) for r in records] == sorted(map(tool.seconds_of, records)) # cheapest first
    rows = [tool.head(r) | dict(outcome='same') for r in records]
    (tmp_path/'out.json').write_text(json.dumps(rows))
    assert tool.main([str(HERE/'records'), '--json', str(tmp_path/'out.json')]) == 0
    assert '0 cells to run' in capsys.readouterr().out
    rows[0] |= dict(outcome='ties', round=3, picks=4, else_recorded=True)
    (tmp_path/'out.json').write_text(json.dumps(rows))
    assert tool.main(['--show', str(tmp_path/'out.json')]) == 1
    assert 'ties decide 4 picks in round 3; with the smaller id as recorded' in capsys.readouterr().out

def test_the_records_are_never_written_to(tmp_path):
    same = str(HERE/'records')
    with pytest.raises(SystemExit, match='choose another'): tool.main([same, '--keep', same])
