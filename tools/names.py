"The names that `al_repro` gives by itself: chosen here, written to al_repro/_names.py and al_repro/__init__.pyi"
import importlib, inspect
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHOSEN = {
    'checks': 'BadArgument',
    'data.dataset': 'Dataset dataset data_root',
    'data.images': 'download',
    'data.text': 'text_dataset',
    'data.backbones': 'FrozenNet backbone',
    'data.catalog': 'load',
    'data.pool': 'Pool',
    'models.recipe': 'Recipe',
    'models.train': 'fit',
    'models.outputs': 'outputs evaluate',
    'models.pretext': 'Pretext',
    'select.topk': 'top_k',
    'select.kcenter': 'k_center cover_radius',
    'select.facility': 'facility_location',
    'select.kmeans': 'weighted_kmeans assign_distinct',
    'select.plusplus': 'plus_plus',
    'query.query': 'Query',
    'query.strategy': 'strategy together by_score in_steps among preselect select_many',
    'query.spec': 'Spec build known',
    'query.contract': 'check_strategy sample_arrays',
    'strategies.bal': 'cluster_distance_difference sub_pools',
    'strategies.badge': 'gradient_embedding',
    'strategies.batchbald': 'informative_batch joint_information power_sample',
    'strategies.dfal': 'deepfool',
    'runs.protocol': 'Protocol',
    'runs.paper': 'Experiment Paper Setting papers protocols register three_columns',
    'runs.records': 'load_records table',
    'runs.rounds': 'replay',
    'runs.runner': 'run',
    'runs.merge': 'merge',
    'runs.pack': 'pack unpack',
    'runs.study': 'Study run_study study_table',
    'evidence.claims': 'Claim Part Scope',
    'evidence.effects': 'aulc effect',
    'evidence.verdicts': 'verdicts',
    'evidence.scorecard': 'all_verdicts',
    'show.curves': 'class_entropy curve_gap learning_curves',
    'show.report': 'write_report'}

def packages():
    "Subpackages and modules right below `al_repro`"
    found = [p for p in (ROOT/'al_repro').iterdir() if p.name[0] != '_']
    return sorted(p.stem for p in found if p.suffix == '.py' or (p/'__init__.py').exists())

def registered():
    "Name of each strategy of the package, and `module:function` where it is defined"
    from al_repro.query.spec import known
    for name, s in known().items():
        made_of = s.score if hasattr(s.score, '__wrapped__') else s
        module = inspect.getmodule(inspect.unwrap(made_of))
        own = next(n for n, v in vars(module).items() if v is s)
        yield name, module.__name__.removeprefix('al_repro.') + f':{own}'*(own != name)

def scores():
    "Scores of the strategies' modules"
    import al_repro.strategies, pkgutil
    for m in pkgutil.iter_modules(al_repro.strategies.__path__):
        module = importlib.import_module(f'al_repro.strategies.{m.name}')
        yield from ((n, f'strategies.{m.name}') for n in module.__all__ if n.endswith('_score'))

def names():
    "name -> module, or module:name where it is called otherwise there"
    res = {n: module for module, own in CHOSEN.items() for n in own.split()} | dict(scores())
    for name, where in registered():
        res[name] = where
        if ':' in where: res[where.split(':')[1]] = where.split(':')[0]
    for name, where in res.items():
        module, _, own = where.partition(':')
        there = importlib.import_module(f'al_repro.{module}')
        assert hasattr(there, own or name), f'al_repro.{module} has no {own or name}'
    return dict(sorted(res.items(), key=lambda kv: (kv[1].split(':')[0], kv[0])))

def files():
    "Path -> text of what is generated"
    every, made = names(), 'Made by tools/nb.py names; do not edit'
    lines = [f'    {n!r}: {w!r},' for n, w in every.items()]
    table = [f'"What `al_repro.NAME` stands for. {made}."', 'NAMES = {', *lines, '}']
    table += ['PACKAGES = (', *(f'    {p!r},' for p in packages()), ')', '']
    stub = [f'# {made}.']
    for n, w in every.items():
        module, _, own = w.partition(':')
        stub.append(f'from .{module} import {own or n} as {n}')
    stub += [f'from . import {p} as {p}' for p in packages()] + ['__version__: str', '']
    return {ROOT/'al_repro'/'_names.py': '\n'.join(table), ROOT/'al_repro'/'__init__.pyi': '\n'.join(stub)}

def problems():
    "What is not as it would be made now"
    return [f'{p.name}: not what is made now; run tools/nb.py names' for p, text in files().items()
            if not p.exists() or p.read_text(encoding='utf-8') != text]
