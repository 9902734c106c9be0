"""The modules of the package and what they import: read from the files, and drawn

    python tools/graph.py      # nbs/images/modules.svg
"""
import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT/'al_repro'
# The lowest first
LAYERS = 'checks', 'data', 'models', 'select', 'query', 'strategies', 'runs', 'evidence', 'show', 'papers', 'cli'
SAYS = {
    'checks': 'errors that carry their argument; what is found by looking',
    'data': 'name -> rows of bytes',
    'models': 'labelled rows -> outputs',
    'select': 'arrays -> positions',
    'query': 'what a strategy may see',
    'strategies': 'query -> ids: one idea each',
    'runs': 'what to run; run it, resume it, record it',
    'evidence': 'records -> verdicts',
    'show': 'records -> pictures and pages',
    'papers': 'experiments, claims, studies of each paper',
    'cli': 'the console script'}
PICTURE = ROOT/'nbs'/'images'/'modules.svg'

def modules():
    "Name of each module, without the package's own, and its path"
    paths = (p for p in sorted(PACKAGE.rglob('*.py')) if p.name[0] != '_')
    return {'.'.join(p.relative_to(PACKAGE).with_suffix('').parts): p for p in paths}

def imported(name, path, known):
    "The modules of the package that a module imports, wherever in it"
    here = name.split('.')
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): found = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ['al_repro', *here[:len(here) - node.level]] if node.level else []
            parent = '.'.join([*base, *filter(None, [node.module])])
            found = [parent, *(f'{parent}.{a.name}' for a in node.names)]
        else: continue
        for full in found:
            own = full.removeprefix('al_repro.')
            if full.startswith('al_repro.') and own in known and own != name: yield own

def arrows():
    "Module -> the modules that it imports"
    known = modules()
    return {name: sorted(set(imported(name, path, known))) for name, path in known.items()}

def layer(name):
    "The height of a module's layer"
    return LAYERS.index(name.split('.')[0])

def lines_of(names, width=70):
    "Module names of a layer, wrapped; those of a paper together"
    groups = {}
    for n in names: groups.setdefault(n.rpartition('.')[0], []).append(n.split('.')[-1])
    for group, own in groups.items():
        text, head = '', f'{group.split(".")[-1]}: ' if group.count('.') else ''
        for n in own:
            if len(head + text + n) > width:
                yield head + text
                text = ''
            text += n + '   '
        yield head + text

def draw():
    "One band a layer with its modules; an arc for the imports between two layers, wide where there are many"
    import matplotlib
    matplotlib.use('svg')
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch, Rectangle
    plt.rcParams.update({'svg.hashsalt': 'al_repro', 'svg.fonttype': 'none', 'font.family': 'sans-serif'})
    found, middle, y = arrows(), {}, 0
    between = Counter((layer(a), layer(b)) for a, bs in found.items() for b in bs if layer(a) != layer(b))
    texts = [[*lines_of([n for n in found if layer(n) == i])] for i in range(len(LAYERS))]
    height = sum(len(t) for t in texts)*.19 + len(LAYERS)*.42
    fig, ax = plt.subplots(figsize=(11, height))
    for i, name in enumerate(LAYERS):
        top = y + .42 + .19*len(texts[i])
        ax.add_patch(Rectangle((0, y + .04), 7.6, top - y - .08, facecolor='#eef3f8', edgecolor='#8aa4bd'))
        ax.text(.1, top - .24, name, weight='bold', size=11)
        ax.text(1.5, top - .24, SAYS[name], size=9, color='#555555')
        if name != "checks":
            for j, line in enumerate(texts[i]):
                ax.text(.1, top - .46 - .19*j, line.strip(), size=8.5, family='monospace')
        middle[i], y = (y + top)/2, top
    for (a, b), n in between.items():
        bend, colour = (-.55, '#33669988') if a > b else (.55, '#cc3333')
        look = dict(arrowstyle='-|>', mutation_scale=9, linewidth=.4 + .12*n, color=colour)
        ax.add_patch(FancyArrowPatch((7.6, middle[a]), (7.6, middle[b]), connectionstyle=f'arc3,rad={bend}', **look))
    ax.set(xlim=(0, 11), ylim=(0, y))
    ax.axis('off')
    fig.savefig(PICTURE, metadata=dict(Date=None), bbox_inches='tight')
    return PICTURE

if __name__ == '__main__': print(draw().relative_to(ROOT))
