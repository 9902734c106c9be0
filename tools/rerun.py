#!/usr/bin/env python3
"""Run committed records again and compare them, round by round, with what they say.

    python tools/rerun.py results --seed 0                          # a seed of every cell, the cheapest first
    python tools/rerun.py results --strategy margin --json out.json # cells that out.json holds are not repeated
    python tools/rerun.py --show out.json                           # what it holds, nothing is run

A cell is one protocol folder and one strategy. Records are only read: the runs go to a folder of their own.
Each cell ends in one of four ways:

    same       picks and accuracies are those of the record
    order      ties decide the order of the same picks; the run goes on in the recorded order
    rounding   they are not those of the record, but never because of ties: another machine or torch rounds otherwise
    ties       a batch hangs on who goes first among equals: with ties to the smaller id the strategy picks others

Whether ties decide is only asked of a batch that is not the record's; the first `ties` ends the cell.
A run that rounding has led away from its record is another run: --after N plays N more batches of it, and no further.
For two versions of the code on one machine: keep the runs of the first (--keep DIR), then give DIR for results.
"""
import argparse, collections, contextlib, copy, functools, json, sys, tempfile, time
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
import numpy as np


# ---------------------------------------------------------------- cells

def seconds_of(record):
    "What a run took when it was recorded"
    return sum(sum(r['seconds'].values()) for r in record['rounds'])

def cells(folder, seed, protocol=None, strategy=None):
    "Finished, fresh records of one seed, the cheapest first; and why others of that seed are left out"
    from al_repro.runs.records import load_records, stale_reason
    found, left = [], collections.Counter()
    for r in load_records(folder)[0]:
        p = r['protocol']
        if r['seed'] != seed or strategy and strategy not in (r['label'], r['spec']['name']): continue
        if protocol and protocol not in (p['name'], folder_of(r)): continue
        why = stale_reason(r) or '' if r['done'] else 'unfinished'
        why = why or ('not run on a CPU' if r['device'] != 'cpu' else '')
        if why: left[why] += 1
        else: found.append(r)
    return sorted(found, key=seconds_of), left

def folder_of(record):
    "The name of a record's protocol folder"
    from al_repro.runs.protocol import from_json
    return from_json(record['protocol']).folder

def key_of(cell):
    "What tells one cell from another in the JSON"
    return cell['protocol'], cell['strategy'], cell['seed'], cell['identity']

def head(record):
    "The part of a JSON row that names the cell"
    own = dict(protocol=folder_of(record), strategy=record['label'], seed=record['seed'])
    return own | dict(identity=record['identity'], recorded=round(seconds_of(record), 1))


# ---------------------------------------------------------------- one cell

@functools.lru_cache(2)
def data_of(name, root, size):
    "A data set; folder:NAME lies in the folder of data sets"
    from al_repro.data.catalog import load
    if not name.startswith('folder:'): return load(name, root, size)
    return load(f'folder:{Path(root or ".")/name.removeprefix("folder:")}', root, size)

def difference(old, new):
    "Of one round: how many picks differ, whether only in their order, and by how much the accuracy does"
    from al_repro.runs.shapes import unpack_ids
    a, b = (unpack_ids(r['picks']) for r in (old, new))
    if len(a) != len(b): return dict(picks=max(len(a), len(b)), order=False, accuracy=None)
    odd = len(np.setdiff1d(a, b))
    moved = bool((a != b).any()) and not odd
    return dict(picks=odd, order=moved, accuracy=round(new['test_accuracy'] - old['test_accuracy'], 6))

def compare(old, new):
    "The first round whose picks or accuracy differ, and how; none for equal runs as far as the new one goes"
    for a, b in zip(old['rounds'], new['rounds']):
        d = difference(a, b)
        if d['picks'] or d['order'] or d['accuracy']: return dict(outcome='rounding', round=a['round']) | d
    return dict(outcome='same')

class Tied(Exception): "A batch that hangs on ties."
class Away(Exception): "Enough batches of a run that has left its record."

@contextlib.contextmanager
def ties_to_smaller_ids():
    "Queries whose priorities are the ids themselves"
    from al_repro.query.query import Query
    own = Query.ties_of
    Query.ties_of = lambda self, ids, all_run=False: np.asarray(ids, np.int64)
    try: yield
    finally: Query.ties_of = own

def asked_twice(select_many, recorded, reordered, most):
    """`select_many` that asks again, ties to the smaller id, where a batch is not among the `recorded` ones

    Rounds whose picks come in another order then are noted in `reordered`. `Away` once `most` batches have been
    asked for beyond the first that is in no way recorded."""
    away = []
    def select(strategy, queries, k):
        before = [(copy.deepcopy(q.rng.bit_generator.state), len(q.log)) for q in queries]
        picks = select_many(strategy, queries, k)
        if all(tuple(p.tolist()) in recorded for p in picks): return picks
        after = [(q.rng.bit_generator.state, q.log[n:]) for q, (_, n) in zip(queries, before)]
        for q, (state, n) in zip(queries, before): q.rng.bit_generator.state, q.log[n:] = state, []
        with ties_to_smaller_ids(): other = select_many(strategy, queries, k)
        for q, (_, n), (state, log) in zip(queries, before, after): q.rng.bit_generator.state, q.log[n:] = state, log
        for q, p, o in zip(queries, picks, other):
            known = tuple(o.tolist()) in recorded
            if len(odd := np.setdiff1d(p, o)): raise Tied(len(q.past), len(odd), known)
            if (p != o).any(): reordered.append(len(q.past))
        if not any(tuple(p.tolist()) in recorded for p in [*picks, *other]): away.append(1)
        if len(away) > most: raise Away
        return other
    return select

@contextlib.contextmanager
def watched(record, after):
    "Rounds with `asked_twice` in them"
    from al_repro.runs import rounds, starts
    from al_repro.runs.records import rounds_of
    recorded, reordered = {tuple(ids.tolist()) for ids in rounds_of(record)}, []
    own = rounds.select_many
    rounds.select_many = starts.select_many = asked_twice(own, recorded, reordered, after)
    try: yield reordered
    finally: rounds.select_many = starts.select_many = own

def rerun(record, out, root, after=float('inf')):
    "One cell afresh, up to the first batch that hangs on ties; a row for the JSON"
    from al_repro.query.spec import Spec
    from al_repro.runs.protocol import from_json
    from al_repro.runs.records import identity, path_of, read_json
    from al_repro.runs.group import run_group
    from al_repro.runs.rounds import one_thread
    began, p = time.perf_counter(), from_json(record['protocol'])
    spec = Spec.make(record['spec']['name'], **record['spec']['options'])
    data = data_of(record['protocol']['data'], root, p.size)
    if data.fingerprint != record['data']['fingerprint']: return head(record) | dict(outcome='other data')
    path = path_of(out, p, spec, record['seed'], identity(p, spec, data.fingerprint))
    path.unlink(missing_ok=True) # never resumed
    try:
        with one_thread(), watched(record, after) as reordered, contextlib.suppress(Away):
            run_group(p, spec, record['members'], data, out)
        new = read_json(path)
        found = compare(record, new) | dict(rounds=len(new['rounds']))
        if reordered: found['reordered'] = reordered
        if reordered and found['outcome'] == 'same': found['outcome'] = 'order'
    except Tied as e: found = dict(outcome='ties', round=e.args[0], picks=e.args[1], else_recorded=e.args[2])
    return head(record) | found | dict(seconds=round(time.perf_counter() - began, 1))

def attempt(record, out, root, after):
    "As `rerun`; an error becomes a row"
    try: return rerun(record, out, root, after)
    except Exception as e: return head(record) | dict(outcome='error', error=f'{type(e).__name__}: {e}')

def prepare(record, root):
    "Train the features that a cell reads before any worker asks for them, so that no two do it at once"
    from al_repro.runs.protocol import from_json
    from al_repro.runs.rounds import one_thread
    from al_repro.runs.starts import assets_of, made
    p = from_json(record['protocol'])
    if not p.pretext: return
    data = data_of(record['protocol']['data'], root, p.size)
    if made(p, data) or data.fingerprint != record['data']['fingerprint']: return
    print(f'training features for {p.folder}', flush=True)
    with one_thread(): assets_of(p, data)


# ---------------------------------------------------------------- all cells

def line(row):
    "A row in words"
    name = f"{row['protocol']:45} {row['strategy']:60} seed {row['seed']}"
    if row['outcome'] == 'ties':
        how = f"{row['picks']} picks" if row['picks'] else 'the order'
        more = '; with the smaller id as recorded'*row['else_recorded']
        return f"{name}  ties decide {how} in round {row['round']}{more}"
    if row['outcome'] == 'order':
        return f"{name}  as recorded but for the order of ties in {len(row['reordered'])} rounds"
    if row['outcome'] != 'rounding': return f"{name}  {row.get('error') or row['outcome']}"
    how = 'picks in another order' if row['order'] else f"{row['picks']} other picks"
    none = f"no ties in {row['rounds']} rounds" if 'rounds' in row else 'no ties'
    return f"{name}  rounding, from round {row['round']} on: {how}, accuracy by {row['accuracy']}; {none}"

def read_rows(path):
    "The rows of a JSON file; none if there is no such file"
    return json.loads(Path(path).read_text()) if path and Path(path).exists() else []

def write_rows(path, rows):
    "So that the file always holds a whole version"
    from al_repro.runs.records import write_json
    if path: write_json(Path(path), rows)

def finished(records, a, out):
    "Rows as the cells end; no new cell begins after the deadline"
    from al_repro.runs.workers import deaf, processes
    until, waiting, running = time.time() + 3600*a.limit_hours, list(records), set()
    with processes(a.workers, 'finished cells are written') as pool:
        while waiting or running:
            while waiting and len(running) < a.workers and time.time() < until:
                prepare(waiting[0], a.data_root)
                with deaf(): running.add(pool.submit(attempt, waiting.pop(0), out, a.data_root, a.after))
            if not running: return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for f in done: yield f.result()

def summary(rows):
    "How many cells ended how"
    return ', '.join(f'{n} {outcome}' for outcome, n in collections.Counter(r['outcome'] for r in rows).items())

def again(a):
    "Run what is asked for and not done; the rows of the JSON"
    rows = read_rows(a.json)
    done = {key_of(r) for r in rows if r['outcome'] != 'error'}
    records, left = cells(a.folder, a.seed, a.protocol, a.strategy)
    for why, n in left.items(): print(f'left out: {n} records, {why}')
    records = [r for r in records if key_of(head(r)) not in done]
    print(f'{len(records)} cells to run, recorded in {sum(map(seconds_of, records))/3600:.2f} hours', flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        for row in finished(records, a, Path(a.keep or tmp)) if records else ():
            rows = [r for r in rows if key_of(r) != key_of(row)] + [row]
            write_rows(a.json, rows)
            print(line(row), flush=True)
    return rows

def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg = p.add_argument
    arg('folder', nargs='?', default='results', help='of records (default: results)')
    arg('--seed', type=int, default=0)
    arg('--protocol', help='only this one, by its name or its folder')
    arg('--strategy', help='only this one, by its name or with its options')
    arg('--data-root', metavar='DIR', help='where data sets lie, as for al_repro --root; folder:NAME is DIR/NAME')
    arg('--workers', type=int, default=1, help='processes, each on one thread (default: 1)')
    arg('--limit-hours', type=float, default=float('inf'), metavar='H', help='begin no cell after so long')
    arg('--after', type=int, default=float('inf'), metavar='N',
        help='batches to ask for once a run has left its record, 1 or more (default: all)')
    arg('--json', metavar='OUT', help='rows of finished cells; what it holds is not run again')
    arg('--keep', metavar='DIR', help='keep the records of the new runs here')
    arg('--show', metavar='JSON', help='print what a JSON file holds, and run nothing')
    return p

def main(argv=None):
    a = parser().parse_args(argv)
    if a.after < 1: sys.exit(f'--after {a.after}; give 1 or more')
    if a.keep and Path(a.keep).resolve() == Path(a.folder).resolve():
        sys.exit('--keep is the folder of the records; choose another')
    from al_repro.runs.packed import PACK
    if a.keep and any(Path(a.keep).rglob(PACK)): # its runs would be taken for new ones
        sys.exit(f'--keep {a.keep} holds packed records; choose another, or al_repro pack {a.keep} --unpack')
    if a.show:
        rows = read_rows(a.show)
        for row in rows: print(line(row))
    else: rows = again(a)
    print(summary(rows) or 'nothing was run')
    return 1 if any(r['outcome'] not in ('same', 'order', 'rounding') for r in rows) else 0

if __name__ == '__main__': sys.exit(main())
