#!/usr/bin/env python3
"""Run, check and publish the notebooks, by nbdev's own rules.

    python tools/nb.py run nbs/data/08_catalog.ipynb   # execute in place, then clean
    python tools/nb.py readme                       # README.md from nbs/index.ipynb
    python tools/nb.py links --set-repo https://github.com/someone/al_repro
    python tools/nb.py check                        # everything a commit must satisfy
    python tools/nb.py names                        # the names that `al_repro` gives by itself
    python tools/nb.py docs                         # the pages that Quarto renders, and their links
    python tools/nb.py colab strategies/30_dal      # every cell, in an empty folder, as on Colab
"""
import argparse, ast, difflib, os, posixpath, re, shutil, subprocess, sys, tempfile, time, warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT/'tools'))
import colab, docs, names

MAX_LINES = 40          # of a code cell
os.environ.setdefault('PYDEVD_DISABLE_FILE_VALIDATION', '1')
# Waiting threads that spin slow a busy machine, those that sleep at once an idle one
for k, v in dict(OMP_WAIT_POLICY='passive', GOMP_SPINCOUNT='10000').items(): os.environ.setdefault(k, v)


# ---------------------------------------------------------------- notebooks

def config():
    "The project's settings.ini as nbdev reads it"
    from nbdev.config import get_config
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return get_config(path=ROOT)

def notebooks():
    "All notebooks of the project, in reading order"
    skip = lambda p: any(o[0] in '._' for o in p.relative_to(ROOT).parts)
    return sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if not skip(p))

def rel(path):
    "`path` as shown to people"
    path = Path(path)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)

def processed(path):
    "Cells of `path` without their directives, which are in `cell.directives_`; front matter"
    from nbdev.process import NBProcessor
    from nbdev.frontmatter import FrontmatterProc
    cells = NBProcessor(path).nb.cells
    return cells, getattr(NBProcessor(path, procs=FrontmatterProc, process=True).nb, 'frontmatter_', {})

def is_run(cell, flags):
    "Does `nbdev.test.test_nb` run this cell, where `flags` are the directives that stop it?"
    if cell.cell_type != 'code' or 'nbdev_export(' in cell.source: return False
    if cell.directives_.get('eval:', [''])[0].lower() == 'false': return False
    return not set(flags) & cell.directives_.keys()

def parsed(src):
    "The statements of a cell as nbdev reads them: none where it is a shell line or a magic"
    if src.strip()[:1] in ('%', '!'): return []
    try: return ast.parse(src).body
    except SyntaxError: return []

def clean(nb):
    "Clean `nb` in place as `nbdev_clean` does"
    from nbdev.clean import clean_nb
    cfg = config()
    clean_nb(nb, cfg.clear_all, cfg.get('allowed_metadata_keys', '').split(),
             cfg.get('allowed_cell_metadata_keys', '').split(), cfg.clean_ids)


# ---------------------------------------------------------------- run

def run_nb(path, flags=''):
    "Execute one notebook in place and clean it; False, and the file as it was, where a cell fails"
    from execnb.nbio import read_nb, write_nb, _dict2obj
    from execnb.shell import CaptureShell
    from fastcore.xtras import str2bool
    nb, (cells, front) = read_nb(path), processed(path)
    if str2bool(front.get('skip_exec', False)):
        print(f'{rel(path)}: skip_exec, not run')
        return True
    skip, start = set(config().tst_flags.split()) - set(flags.split()), time.time()
    os.environ['IN_TEST'] = '1'
    sys.path.insert(0, str(ROOT))
    os.chdir(path.parent)
    shell = CaptureShell(path, mpl_format='png')
    shell.run("import matplotlib; matplotlib.rcParams['figure.dpi'] = 100; del matplotlib")
    for i, (cell, proc) in enumerate(zip(nb.cells, cells)):
        if not is_run(proc, skip): continue
        src = proc.source if 'slow' in skip else re.sub(r'(?m)^RUN_SLOW = False', 'RUN_SLOW = True', proc.source)
        cell.outputs = _dict2obj(list(shell.run(src)))
        if shell.exc:
            tb = ''.join(o for out in cell.outputs if out.output_type == 'error' for o in out.traceback)
            print(f'{rel(path)}: cell {i} failed\n{"-"*70}\n{cell.source}\n{"-"*70}\n{tb}', file=sys.stderr)
            return False
    clean(nb)
    write_nb(nb, path)
    print(f'{rel(path)}: {time.time()-start:.1f} s')
    return True

def cmd_run(a):
    "Execute notebooks in place: all, or those given; each in a process of its own"
    paths = []
    for o in a.paths or [ROOT/'nbs']:
        o = Path(o).resolve()
        if not o.exists(): sys.exit(f'{o}: no such notebook or folder')
        paths += [p for p in notebooks() if p.is_relative_to(o)] if o.is_dir() else [o]
    if not paths: sys.exit('no notebooks found')
    if len(paths) == 1: return run_nb(paths[0], a.flags)
    cmd = [sys.executable, __file__, 'run', '--flags', a.flags]
    bad = [rel(p) for p in paths if subprocess.run(cmd + [str(p)]).returncode]
    if bad: print('failed: ' + ' '.join(bad), file=sys.stderr)
    return not bad


# ---------------------------------------------------------------- readme

def from_root(md, folder='nbs'):
    "`md` with links relative to `folder` rewritten relative to the repository"
    def f(m):
        pre, url = m.groups()
        if re.match(r'[a-z][a-z+.-]*:|#|/', url): return m[0]
        url = posixpath.normpath(f'{folder}/{url}')
        if not (ROOT/url.split('#')[0]).exists():
            raise FileNotFoundError(f'{folder}/index.ipynb links to {url}, which is not there')
        return pre + url
    return re.sub(r'(\]\(|\bsrc="|\bhref=")([^)\s"]+)', f, md)

def output_md(out):
    "One stored output as markdown; pictures must be committed files instead"
    if out.output_type == 'stream': return '```\n' + ''.join(out.text).rstrip() + '\n```'
    data = out.get('data', {})
    if any(k.startswith('image/') for k in data):
        raise ValueError('index.ipynb stores a picture as an output; save it under nbs/images and show it by markdown')
    if 'text/markdown' in data: return ''.join(data['text/markdown'])
    return '```\n' + ''.join(data.get('text/plain', '')).rstrip() + '\n```'

def readme():
    "Text of README.md: what nbs/index.ipynb shows, without Quarto"
    path = ROOT/'nbs'/config().readme_nb
    cells, front = processed(path)
    res, titled = ['<!-- Made from nbs/index.ipynb by tools/nb.py readme; edit the notebook. -->'], False
    for c in cells:
        src, d = c.source.strip(), c.directives_
        if not src or c.cell_type == 'raw' or {'hide', 'export', 'exporti', 'default_exp'} & d.keys(): continue
        if c.cell_type == 'markdown':
            if not titled and src.startswith('# '):
                line = f"\n\n> {front['description']}" if 'description' in front else ''
                titled, src = True, f"# {front['title']}{line}"
            res.append(re.sub(r'^:::.*\n?', '', from_root(src), flags=re.M).strip())
            continue
        if d.get('include:') == ['false']: continue
        code = '\n'.join(o for o in src.splitlines() if not re.match(r'#\s*\|', o))
        if d.get('echo:') != ['false']: res.append(f'```python\n{code}\n```')
        if d.get('output:') != ['false']: res += [output_md(o) for o in c.get('outputs', [])]
    return '\n\n'.join(res) + '\n'

def cmd_readme(a):
    "Write README.md from nbs/index.ipynb"
    (ROOT/'README.md').write_text(readme(), encoding='utf-8')
    print('README.md written')


# ---------------------------------------------------------------- links

_colab = re.compile(r'colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/([\w./-]+?)/(nbs/[^)\s"\\]*)')
_text = {'.ini', '.md', '.cff', '.yml', '.yaml', '.toml', '.py', '.ipynb', ''}

def linked_files():
    "Files in which the public address may stand: all text outside the package, whose modules are exported"
    dirs = [ROOT/o for o in ('nbs', '.github', 'benchmarks')]
    files = list(ROOT.glob('*')) + [p for d in dirs for p in d.rglob('*')]
    return sorted(p for p in files if p.is_file() and not p.is_symlink() and p.suffix in _text
                  and not {'.ipynb_checkpoints', '__pycache__'} & set(p.parts))

def read(p):
    "Text of `p`, empty where it is not text"
    try: return Path(p).read_text(encoding='utf-8')
    except UnicodeDecodeError: return ''

def address():
    "(slug, docs, branch) from settings.ini: `owner/repo`, the site's address, the branch"
    cfg = config()
    m = re.fullmatch(r'https://github\.com/([\w.-]+/[\w.-]+?)/?', cfg.git_url)
    if not m: raise ValueError(f'git_url={cfg.git_url} in settings.ini is not like https://github.com/owner/repo')
    return m[1], (cfg.doc_host.rstrip('/') + '/' + cfg.doc_baseurl.strip('/')).rstrip('/'), cfg.branch

def pages(slug):
    "Address at which GitHub serves the site of `slug`"
    owner, repo = slug.split('/')
    return f'https://{owner.lower()}.github.io/{repo}'

def set_setting(key, value):
    "Set `key` in settings.ini, keeping its other lines"
    p = ROOT/'settings.ini'
    txt, n = re.subn(rf'(?m)^{key}\s*=.*$', lambda m: f'{key} = {value}', p.read_text(encoding='utf-8'))
    if n != 1: raise KeyError(f'{key} stands {n} times in settings.ini')
    p.write_text(txt, encoding='utf-8')

def rewrite(txt, slug, docs, branch, old_slugs, old_docs, path=None):
    "`txt` with every old address replaced; the first Colab link, the badge, of the notebook at `path` opens itself"
    first = [path]
    for o in sorted(old_docs, key=len, reverse=True): txt = re.sub(re.escape(o) + r'(?![\w.-]*\w)', docs, txt)
    for o in sorted(old_slugs, key=len, reverse=True):
        there = r'(github(?:usercontent)?\.com/|/github/)' + re.escape(o) + r'(?=\.git\b|[^\w.-]|\.(?!\w)|$)'
        txt = re.sub(there, lambda m: m[1]+slug, txt)
    def own(m):
        to = first.pop() if first else None
        return f'colab.research.google.com/github/{slug}/blob/{branch}/' + (to or m[3])
    return _colab.sub(own, txt)

def badge_path(p):
    "Where the first Colab link of file `p` must lead: to itself, for a notebook"
    return rel(p.with_suffix('.ipynb')) if p.suffix in ('.ipynb', '.py') and p.is_relative_to(ROOT/'nbs') else None

def stated():
    "Addresses of the site as CITATION.cff and _quarto.yml give them"
    def find(p, k):
        text = read(ROOT/p) if (ROOT/p).exists() else ''
        return re.findall(rf'(?m)^\s*{k}:\s*"?(https?://[^"\s]+?)/?"?\s*$', text)
    return find('CITATION.cff', 'url') + find('_quarto.yml', 'site-url')

def addresses_in(texts):
    "Slugs that look like former addresses of this repository: in Colab badges, or with its name"
    slug, _, _ = address()
    repo = slug.split('/')[1]
    res = {m[1] for t in texts for m in _colab.finditer(t)}
    named = rf'github\.com/([\w.-]+/{re.escape(repo)})(?![\w-])'
    return res | {m for t in texts for m in re.findall(named, t)} | {slug}

def cmd_links(a):
    "Write the repository's public address everywhere, from settings.ini or `--set-repo`"
    files = [p for p in linked_files() if p.name != 'settings.ini']
    old_slugs = addresses_in(map(read, files))
    old_docs = {address()[1], *stated(), *map(pages, old_slugs)}
    if a.set_repo:
        m = re.fullmatch(r'https://github\.com/([\w.-]+)/([\w.-]+?)(\.git)?/?', a.set_repo)
        if not m: sys.exit(f'--set-repo {a.set_repo}: give an address like https://github.com/owner/repo')
        owner, repo = m[1], m[2]
        hidden = '@users.noreply.github.com'
        if config().author_email.endswith(hidden): set_setting('author_email', owner + hidden)
        new = dict(user=owner, repo=repo, git_url=f'https://github.com/{owner}/{repo}')
        for k, v in new.items(): set_setting(k, v)
    if a.set_repo or a.docs:
        new = (a.docs or pages(f'{owner}/{repo}')).rstrip('/')
        m = re.fullmatch(r'(https?://[^/]+)(/.*)?', new)
        if not m: sys.exit(f'--docs {a.docs}: give an address like https://owner.github.io/repo')
        set_setting('doc_host', m[1]); set_setting('doc_baseurl', m[2] or '/')
    from nbdev.config import get_config
    get_config.cache_clear()
    slug, docs, branch = address()
    for p in files:
        old = read(p)
        new = rewrite(old, slug, docs, branch, old_slugs, old_docs, badge_path(p))
        if new != old: p.write_text(new, encoding='utf-8'); print(f'{rel(p)}: rewritten')
    export(ROOT)

def link_problems():
    "Addresses that disagree with settings.ini, one line each"
    slug, docs, branch = address()
    files = [p for p in linked_files() if not (p.suffix == '.py' and p.is_relative_to(ROOT/'nbs'))]
    texts, res = {p: read(p) for p in files}, []
    slugs = addresses_in(texts.values())
    for p, txt in texts.items():
        new = rewrite(txt, slug, docs, branch, slugs, {*stated(), *map(pages, slugs)}, badge_path(p))
        for x, y in zip(txt.splitlines(), new.splitlines()):
            if x != y: res.append(f'{rel(p)}: {x.strip()[:160]} should be {y.strip()[:160]} (tools/nb.py links)')
    for p in notebooks():
        for _, _, to in _colab.findall(texts[p]):
            if not (ROOT/to).exists(): res.append(f'{rel(p)}: a Colab link leads to {to}, which is not there')
    for o in 'CITATION.cff', '_quarto.yml':
        for want in f'https://github.com/{slug}', docs:
            if want not in texts.get(ROOT/o, ''): res.append(f'{o}: {want} is missing (tools/nb.py links)')
    if config().user != slug.split('/')[0]:
        res.append(f'settings.ini: user={config().user} but git_url={config().git_url}')
    return res


# ---------------------------------------------------------------- check

def export(root):
    "`nbdev_export` in `root`"
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    code = 'from nbdev.doclinks import nbdev_export; nbdev_export.__wrapped__()'
    cmd = [sys.executable, '-W', 'ignore', '-c', code]
    res = subprocess.run(cmd, cwd=root, env=env, capture_output=True, text=True)
    if res.returncode: raise RuntimeError(f'nbdev_export failed:\n{res.stderr}')

def export_problems():
    "Modules that differ from what their notebooks export"
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)/'repo'
        for p in [ROOT/'settings.ini', *(ROOT/'al_repro').rglob('__init__.py'), *notebooks()]:
            (d/rel(p)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(p, d/rel(p))
        export(d)
        def find(root): # path -> text
            files = (p for p in (root/'al_repro').rglob('*.py') if p.name != '_names.py')
            return {p.relative_to(root).as_posix(): p.read_text(encoding='utf-8') for p in files}
        new, old = find(d), find(ROOT)
    res = [f'{o}: no notebook exports it' for o in sorted(old.keys() - new.keys())]
    for o, txt in sorted(new.items()):
        if o not in old: res.append(f'{o}: missing; run nbdev_export')
        elif old[o] != txt:
            diff = [l for l in difflib.unified_diff(old[o].splitlines(), txt.splitlines(), lineterm='', n=0)][3:6]
            res.append(f'{o}: not what the notebook exports; run nbdev_export ({" | ".join(diff)[:200]})')
    return res

def _here(tree):
    "Nodes that surely run when `tree` does: not inside functions, branches, handlers, or where output is captured"
    todo = list(tree)
    later = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda
    perhaps = ast.If, ast.IfExp, ast.While, ast.BoolOp
    while todo:
        o = todo.pop()
        yield o
        if isinstance(o, (*later, *perhaps)): continue
        if isinstance(o, ast.With) and re.search('redirect|capture', ast.unparse(o.items[0])): continue
        if isinstance(o, ast.Try): todo += o.finalbody + ([] if o.handlers else o.body)
        else: todo += list(ast.iter_child_nodes(o))

def must_show(src):
    "Does code `src` surely leave an output: a print, a figure, or a closing value that is no call?"
    try: tree = ast.parse(src).body
    except SyntaxError: return False
    calls = (o for o in _here(tree) if isinstance(o, ast.Call) and all(k.arg != 'file' for k in o.keywords))
    names = [ast.unparse(o.func).split('.')[-1] for o in calls]
    if {'subplots', 'figure', 'subplot_mosaic'} & set(names) and 'close' not in names: return True
    if src.rstrip().endswith(';'): return False     # execnb drops stdout too
    if {'print', 'display'} & set(names): return True
    last = tree[-1] if tree else None
    quiet = ast.Call, ast.Await, ast.Yield, ast.IfExp, ast.BoolOp
    return isinstance(last, ast.Expr) and not isinstance(last.value, quiet) and not (
        isinstance(last.value, ast.Constant) and last.value.value is None)

def may_show(src):
    "Does code `src` end in a call that may well have a value?"
    try: tree = ast.parse(src).body
    except SyntaxError: return False
    if not tree or not isinstance(tree[-1], ast.Expr) or src.rstrip().endswith(';'): return False
    o = tree[-1].value
    quiet = 'test', 'check', 'assert', 'seed'
    return isinstance(o, ast.Call) and not ast.unparse(o.func).split('.')[-1].startswith(quiet)

def import_problem(cell):
    "What is wrong with the imports of a cell, which the docs execute without the cells before it; else None"
    tree, flags = parsed(cell.source), cell.directives_.keys()
    is_import = lambda o: isinstance(o, (ast.Import, ast.ImportFrom))
    is_def = lambda o: isinstance(o, (ast.FunctionDef, ast.ClassDef))
    if not any(is_import(o) for top in tree for o in ast.walk(top)): return None
    if {'slow', 'cuda'} & flags: return 'is marked and holds an import, so the docs would execute it'
    if not is_run(cell, ()): return None
    if any(map(is_import, tree)): alone = all(map(is_import, tree))
    else: alone = {'export', 'exports', 'exporti'} & flags or all(map(is_def, tree))
    return None if alone else 'holds an import and other work; split it: the docs execute it without the cells before'

def marked_problem(cell):
    "What is wrong with a cell marked slow or cuda, which `run all` on Colab would walk into; else None"
    conditions = dict(slow='RUN_SLOW', cuda='torch.cuda.is_available()')
    test = ' and '.join(v for k, v in conditions.items() if k in cell.directives_)
    if not test: return None
    tree = parsed(cell.source)
    guarded = len(tree) == 1 and isinstance(tree[0], ast.If) and not tree[0].orelse
    if guarded and ast.unparse(tree[0].test) == test: return None
    return f'is marked, so all of it stands under `if {test}:`'

def is_page(path, marks):
    "Does a notebook read the project's files, so that it needs a clone? Those that export nothing, tutorials apart"
    return 'default_exp' not in marks and path.parent.name != 'tutorials'

def unrun_problem(cell):
    "What is wrong with a cell that is `eval: false`: `run all` on Colab knows no directives; else None"
    known = cell.source in (colab.DRIVE, colab.LAST) or colab.kind_of(cell.source)
    if known or not re.search(r'(?m)^#\s*\|\s*eval:\s*false', cell.source): return None
    return 'is `eval: false`, yet "run all" on Colab runs it; show a command as text, mark other code slow'

def opening_problems(path, cells, marks):
    "What keeps a notebook from running alone on Colab: badge, install cell, switch, last cell; `marks` are its flags"
    slug, _, branch = address()
    top = [c.source for c in cells if not c.source.startswith('#| default_exp')][:5] + ['']*5
    drive = top.pop(2) if re.search(r'(?m)^DRIVE =', top[2]) else None
    code = [c.source for c in cells if c.cell_type == 'code']
    fastcore = any(re.search(r'(?m)^\s*(from|import) fastcore\b', o) for o in code)
    extra, clone = colab.kind_of(top[2]) or ('', is_page(path, marks))
    badge, install = colab.badge(slug, branch, rel(path)), colab.install(slug, rel(path), extra, fastcore, clone)
    foreign = set(filter(None, extra.split(','))) - set(colab.EXTRAS)
    res = []
    if top[1] != badge: res.append(f'after the title comes the Colab badge, alone:\n{badge}')
    if drive != colab.DRIVE and (drive or 'slow' in marks and clone):
        res.append(f'between badge and install cell comes the cell on Drive:\n{colab.DRIVE}')
    if top[2] != install: res.append(f'after the badge comes the install cell:\n{install}')
    if foreign: res.append(f'installs the extra {", ".join(foreign)}; a notebook may need {" or ".join(colab.EXTRAS)}')
    if 'slow' in marks and top[3] != colab.SWITCH:
        res.append(f'after the install cell comes the switch:\n{colab.SWITCH}')
    if path.name != config().readme_nb and cells[-1].source != colab.LAST:
        res.append(f'the last cell is:\n{colab.LAST}')
    return res

def nb_problems(path):
    "What is wrong with one notebook: not clean, not executed, too long a cell, ..."
    import json, nbformat
    from execnb.nbio import nb2str, read_nb
    from fastcore.xtras import str2bool
    res, txt = [], path.read_text(encoding='utf-8')
    say = lambda s: res.append(f'{rel(path)}: {s}')
    nb, (cells, front) = read_nb(path), processed(path)
    try: nbformat.validate(nbformat.reads(txt, as_version=4))
    except Exception as e: say(f'not a valid notebook: {str(e).splitlines()[0]}')
    if any('id' not in o for o in json.loads(txt)['cells']): say('cells without an id; run nbdev_clean')
    clean(nb)
    if nb2str(nb) != txt: say('not clean; run nbdev_clean')
    skip = set(config().tst_flags.split())
    evaluated = not str2bool(front.get('skip_exec', False))
    shows, shown = [], False
    for i, (c, p) in enumerate(zip(nb.cells, cells)):
        if c.cell_type != 'code': continue
        code = next(iter(p.source.strip().splitlines()), '')[:60]
        outs, n = c.get('outputs', []), len(c.source.splitlines())
        exports = 'nbdev_export(' in p.source and c.source != colab.LAST
        never = 'is never run, as it calls nbdev_export; move the rest of it to a cell of its own'
        if exports: say(f'cell {i} ({code}) {never}')
        if wrong := marked_problem(p): say(f'cell {i} ({code}) {wrong}')
        if wrong := unrun_problem(c): say(f'cell {i} ({code}) {wrong}')
        if wrong := import_problem(p): say(f'cell {i} ({code}) {wrong}')
        if n > MAX_LINES: say(f'cell {i} ({code}) has {n} lines, more than {MAX_LINES}')
        text = nb2str(outs)
        if any(o['output_type'] == 'error' for o in outs): say(f'cell {i} ({code}) stores an error')
        for bad in str(ROOT), f'{Path.home()}/', 'site-packages/', '/tmp/':
            if bad in text: say(f"cell {i} ({code}) has an output with a path of this machine ({bad})")
        if not evaluated or not is_run(p, skip): continue
        shown = shown or bool(outs)
        if must_show(p.source) and not outs: say(f'cell {i} ({code}) has no output; run tools/nb.py run')
        if must_show(p.source) or may_show(p.source): shows.append(i)
    if shows and not shown: say('not executed: no cell has an output; run tools/nb.py run')
    title = next((c.source for c in nb.cells if c.cell_type == 'markdown' and re.match(r'#\s', c.source)), '')
    lost = [o for o in title.splitlines() if o.strip() and not re.match(r'#\s|>\s|- [\w-]+:', o)]
    if lost: say(f'the title cell holds more than title and `>` line, which the docs drop: {lost[0][:80]}')
    if not title: say('no title')
    marks = {f for p in cells if p.cell_type == 'code' for f in p.directives_}
    for o in opening_problems(path, nb.cells, marks): say(o)
    return res

def cmd_check(a):
    "Fail, listing everything that is wrong"
    res = []
    for p in notebooks():
        try: res += nb_problems(p)
        except Exception as e: res.append(f'{rel(p)}: {type(e).__name__}: {e}')
    try: res += export_problems()
    except Exception as e: res.append(str(e))
    res += names.problems()
    try:
        if not (ROOT/'README.md').exists() or readme() != read(ROOT/'README.md'):
            res.append('README.md: differs from nbs/index.ipynb; run tools/nb.py readme')
    except Exception as e: res.append(f'README.md: {e}')
    res += link_problems()
    for o in res: print(o)
    print(f'{len(notebooks())} notebooks, {len(res)} problems')
    return not res


def cmd_names(a):
    "Write the table of public names, and the stub that editors complete from"
    for path, text in names.files().items(): path.write_text(text, encoding='utf-8')
    print(f'{len(names.names())} names')


# ---------------------------------------------------------------- docs and Colab

def cmd_docs(a):
    "Make the pages that Quarto renders, executing each cell that holds an import; follow their links"
    res = [f'{o}: changed by making the docs' for o in docs.make()] + docs.link_problems(docs.PAGES, address()[1])
    for o in res: print(o)
    print(f'{sum(1 for o in docs.PAGES.rglob("*.ipynb"))} pages, {len(res)} problems')
    return not res


def kind_of(path):
    "What the install cell of a notebook installs: (extra, is it a clone)"
    return next(filter(None, map(colab.kind_of, colab.sources(path))), None)

def of_each_kind():
    "The shortest notebook of each kind that an install cell can be"
    res = {}
    for p in sorted(notebooks(), key=lambda p: sum(map(len, colab.sources(p)))): res.setdefault(kind_of(p), p)
    return [p for kind, p in res.items() if kind]

def cmd_colab(a):
    "Execute every cell of notebooks, each in an empty folder, against a wheel of this checkout, as on Colab"
    paths = [ROOT/'nbs'/f'{re.sub(r"^nbs/|[.]ipynb$", "", o)}.ipynb' for o in a.names] or of_each_kind()
    for p in paths:
        if not p.exists(): sys.exit(f'{rel(p)}: no such notebook')
    dev, bad = re.findall(r'(?<!\S)[\w-]+', config().dev_requirements), []
    with tempfile.TemporaryDirectory() as d:
        wheel, clone = a.wheel or colab.build_wheel(Path(d)), Path(d)/'clone'
        for p in docs.files(ROOT): colab.copy(p, clone)
        for p in paths:
            start, log = time.time(), colab.colab(p, wheel, clone, dev)
            if log: bad.append(p)
            print(f'{rel(p)}: {"failed, " if log else ""}{time.time()-start:.1f} s\n{log or ""}'.rstrip(), flush=True)
    return not bad


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sub = p.add_subparsers(dest='cmd', required=True)
    add = lambda nm, f: sub.add_parser(nm, help=f.__doc__, description=f.__doc__)
    r = add('run', cmd_run)
    r.add_argument('paths', nargs='*', help='notebooks or folders (default: all)')
    r.add_argument('--flags', default='', help='run the cells with these flags too, e.g. "slow cuda"')
    add('readme', cmd_readme)
    l = add('links', cmd_links)
    l.add_argument('--set-repo', metavar='URL', help='new address, e.g. https://github.com/owner/al_repro')
    l.add_argument('--docs', metavar='URL', help='new address of the site (default: GitHub pages of the repository)')
    add('check', cmd_check)
    add('names', cmd_names)
    add('docs', cmd_docs)
    c = add('colab', cmd_colab)
    every = 'the shortest notebook of each kind of installation'
    c.add_argument('names', nargs='*', help=f'e.g. strategies/30_dal (default: {every})')
    c.add_argument('--wheel', metavar='FILE', help='a wheel of this checkout (default: made here)')
    a = p.parse_args(argv)
    if getattr(a, 'wheel', None): a.wheel = Path(a.wheel).resolve()
    if a.cmd != 'run': os.chdir(ROOT)
    return globals()['cmd_' + a.cmd](a)

if __name__ == '__main__': sys.exit(main() is False)
