"The shape of the package: imports lead downwards, and no line, module or function grows beyond what a person reads"
import ast, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT/'al_repro'
sys.path.insert(0, str(ROOT/'tools'))
import graph
from graph import LAYERS, layer

MODULES, ARROWS = graph.modules(), graph.arrows()

def test_every_module_lies_in_a_layer(): assert {name.split('.')[0] for name in MODULES} == set(LAYERS)

def test_the_picture_shows_every_module():
    text = graph.PICTURE.read_text(encoding='utf-8')
    assert all(m.split('.')[-1] in text for m in MODULES), 'python tools/graph.py'

def test_imports_lead_downwards():
    wrong = [f'{a} imports {b}' for a, found in ARROWS.items() for b in found if layer(b) > layer(a)]
    assert not wrong, '\n'.join(wrong)

def test_papers_know_nothing_of_each_other():
    paper = lambda name: name.split('.')[1]
    both = lambda a, b: a.startswith('papers.') and b.startswith('papers.')
    pairs = [(a, b) for a, found in ARROWS.items() for b in found if both(a, b)]
    assert not [f'{a} imports {b}' for a, b in pairs if paper(a) != paper(b)]

def test_nothing_imports_itself_on_a_way_round():
    left = {a: set(found) for a, found in ARROWS.items()}
    while free := [a for a, found in left.items() if not found & left.keys()]:
        for a in free: del left[a]
    assert not left, f'circles among {sorted(left)}'

# ---------------------------------------------------------------- what a person can read

WIDE, LONG, COMPLEX = 120, 300, 10
SHARE = .05 # of the package's lines may be longer than 100

def code_files(): return [*MODULES.values(), *(ROOT/'tests').glob('*.py'), *(ROOT/'tools').glob('*.py')]

def written_lines(path):
    "Number and text of each line of a file, without the list of names that nbdev writes into a module"
    text = path.read_text(encoding='utf-8')
    made = re.search(r'(?ms)^__all__ = \[.*?\]', text)
    first, last = (text.count('\n', 0, at) + 1 for at in made.span()) if made else (0, 0)
    return [(i, l) for i, l in enumerate(text.splitlines(), 1) if not first <= i <= last]

def test_lines_are_short():
    lines = ((p, i, l) for p in code_files() for i, l in written_lines(p))
    wide = [f'{p.relative_to(ROOT)}:{i}: {len(l)}' for p, i, l in lines if len(l) > WIDE]
    assert not wide, f'longer than {WIDE}: ' + ', '.join(wide)

def test_most_lines_are_shorter():
    lines = [l for p in MODULES.values() for _, l in written_lines(p)]
    assert sum(len(l) > 100 for l in lines) <= SHARE*len(lines)

def test_modules_are_short():
    long = {name: n for name, p in MODULES.items() if (n := len(p.read_text(encoding='utf-8').splitlines())) > LONG}
    assert not long, long

def test_functions_are_simple():
    from radon.complexity import cc_visit
    blocks = ((name, b) for name, p in MODULES.items() for b in cc_visit(p.read_text(encoding='utf-8')))
    tangled = {f'{name}.{b.name}': b.complexity for name, b in blocks if b.complexity > COMPLEX}
    assert not tangled, tangled

def test_no_comprehension_within_a_comprehension_within_a_lambda():
    kinds = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
    def nested(o): return any(isinstance(x, kinds) and x is not o for x in ast.walk(o))
    deep = []
    for name, path in MODULES.items():
        lambdas = [o for o in ast.walk(ast.parse(path.read_text(encoding='utf-8'))) if isinstance(o, ast.Lambda)]
        deep += [f'{name}:{o.lineno}' for f in lambdas for o in ast.walk(f) if isinstance(o, kinds) and nested(o)]
    assert not deep, deep


# ---------------------------------------------------------------- public names

def test_public_names_exist_once():
    "Papers apart, each of which has its own `columns`, `counting`, ..."
    where = {}
    for name, path in MODULES.items():
        found = re.search(r"(?ms)^__all__ = (\[.*?\])", path.read_text(encoding='utf-8'))
        for public in ast.literal_eval(found[1]) if found else (): where.setdefault(public, []).append(name)
    twice = {k: v for k, v in where.items() if len(v) > 1 and not all(m.startswith('papers.') for m in v)}
    assert not twice, twice

def test_everything_by_one_name():
    import al_repro
    from al_repro.query.spec import known
    assert all(getattr(al_repro, name) is not None for name in al_repro.__all__)
    assert set(al_repro.__all__) <= set(dir(al_repro)) and set(known()) <= set(al_repro.__all__)
    assert al_repro.random is al_repro.uniform is known()['random']
    stub = (PACKAGE/'__init__.pyi').read_text(encoding='utf-8')
    assert all(f' as {name}\n' in stub for name in al_repro.__all__)

def test_a_misspelt_name():
    import al_repro, pytest
    with pytest.raises(AttributeError, match="'al_repro' has no attribute 'marginn'"): al_repro.marginn

def test_importing_is_quick():
    "Under .3 s, whatever else the machine does: the best of three"
    code = ('import time; start = time.perf_counter(); import al_repro, sys\n'
            'print(time.perf_counter() - start, "torch" in sys.modules)')
    run = lambda: subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    said = [run().stdout.split() for _ in range(3)]
    assert min(float(s) for s, _ in said) < .3 and {t for _, t in said} == {'False'}
