"The pages that nbdev makes of the notebooks for Quarto: made, and their links followed"
import hashlib, json, os, re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT/'_proc'                     # as nbdev names it
NOT_OURS = {'.git', '.venv', 'venv', '_proc', '_docs', 'data', 'build', 'dist'}

def files(root=ROOT):
    "The project's files, relative to its root, without what is downloaded or made"
    for folder, names, found in os.walk(root):
        made = NOT_OURS if Path(folder) == Path(root) else set()
        names[:] = [o for o in names if o not in made | {'__pycache__'} and not o.endswith('.egg-info')]
        yield from (Path(folder, o).relative_to(root) for o in found)

def state(root=ROOT):
    "What each of the project's files holds: path to digest"
    digest = lambda p: hashlib.blake2b((root/p).read_bytes()).hexdigest()
    return {p: digest(p) for p in files(root) if p.suffix != '.pyc'}

def make():
    "Make all pages anew, as `nbdev_docs` does before it calls Quarto; files of the project that this changed"
    from nbdev.serve import proc_nbs
    before = state()
    proc_nbs(force=True)
    after = state()
    return sorted(str(p) for p in before.keys() | after.keys() if before.get(p) != after.get(p))


# ---------------------------------------------------------------- links

def slug(heading):
    "The anchor that pandoc gives a heading: the id it names, else its words"
    if named := re.search(r'\{[^}]*#([\w.-]+)[^}]*\}\s*$', heading): return named[1]
    h = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', re.sub(r'\{[^}]*\}\s*$', '', heading))
    h = re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', h.strip().lower()))
    return re.sub(r'^[^a-z]+', '', h) or 'section'

def texts(nb):
    "All that a page shows as markdown or HTML, without code and formulas"
    for c in nb['cells']:
        shown = [c['source']] if c['cell_type'] == 'markdown' else []
        for o in c.get('outputs', []):
            data = o.get('data', {})
            shown += [data[k] for k in ('text/markdown', 'text/html') if k in data]
        for o in shown: yield re.sub(r'```.*?```|\$[^$]*\$', '', ''.join(o), flags=re.S)

def anchors(nb):
    "What a link into this page may name: headings, ids, labels of figures and tables"
    res = set()
    for t in texts(nb):
        res |= {slug(h) for h in re.findall(r'(?m)^#+\s+(.*)$', t)}
        res |= set(re.findall(r'\{#([\w.-]+)', t)) | set(re.findall(r'\bid="([^"]+)"', t))
    code = [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code']
    return res | {o for c in code for o in re.findall(r'#\|\s*label:\s*(\S+)', c)}

def links(nb):
    "Where a page's links and pictures lead"
    for t in texts(nb):
        found = re.findall(r'\]\(([^)\s]+)\)|\b(?:href|src)="([^"]+)"', re.sub(r'`[^`]*`', '', t))
        yield from (url or html for url, html in found)

def address(page, nb, docs):
    "Where the site `docs` has a page, given its path in the site"
    name = re.search(r'(?m)^output-file: (\S+)', ''.join(nb['cells'][0]['source'])) if nb['cells'] else None
    return f'{docs}/{page.with_name(name[1] if name else page.stem + ".html").as_posix()}'

def link_problems(pages, docs):
    "Links of the made pages under `pages` that lead nowhere; the site's own address is `docs`"
    nbs = {p: json.loads(p.read_text(encoding='utf-8')) for p in sorted(Path(pages).rglob('*.ipynb'))}
    known = {p: anchors(nb) for p, nb in nbs.items()}
    site, res = {address(p.relative_to(pages), nb, docs): p for p, nb in nbs.items()}, []
    for p, nb in nbs.items():
        say = lambda url, what: res.append(f'{p.relative_to(pages)}: a link leads to {url}, {what}')
        for url in links(nb):
            path, _, anchor = url.partition('#')
            ours = url.startswith(f'{docs}/')
            if re.match(r'[a-z]+:', url) and not ours: continue
            to = site.get(path) if ours else (p.parent/path).resolve() if path else p
            if to is None or not to.exists(): say(url, 'which is not there')
            elif anchor and to in known and anchor not in known[to]: say(url, 'and that page has no such part')
    return res
