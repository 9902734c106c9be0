"Models of other libraries: one contract for all, through `fit`, the runner and the records"
import importlib.util, json, random, subprocess, sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from al_repro.data.catalog import load
from al_repro.models.nets import ESTIMATORS, MODELS, Member, build_model, estimator
from al_repro.models.outputs import NoDropout, evaluate, outputs
from al_repro.query.spec import Spec
from al_repro.models.recipe import RECIPE_LATER, Recipe, np_rng
from al_repro.models.train import fit
from al_repro.runs.protocol import from_json
from al_repro.runs.paper import protocols
from al_repro.runs.records import identity, load_records, path_of, read_json, stale_reason, write_json
from al_repro.runs.rounds import one_thread, replay
from al_repro.runs.runner import run
from al_repro.runs.group import run_group
from al_repro.runs.records import same_run

ROOT = Path(__file__).resolve().parent.parent
SMOKE = protocols('dal', 'digits', 'smoke')[0]
LAST = dict(holdout=0., checkpoint='last')
needs_keras = pytest.mark.skipif(importlib.util.find_spec('keras') is None,
    reason='Keras is not installed; pip install "al_repro[keras]"')
SMALL = ['sklearn-mlp', 'sklearn-logistic', pytest.param('keras-mlp', marks=needs_keras)]
WARM = [n for n in ('mlp', *SMALL) if n != 'sklearn-logistic']

@pytest.fixture(scope='module', autouse=True)
def _one_thread():
    with one_thread(): yield

@pytest.fixture(scope='module')
def data(): return load('digits')

def sets(data, m, k=60): return [np_rng(s, 'initial').permutation(data.n)[:k] for s in range(m)]

def recipe(name, **k): return Recipe(name, **dict(epochs=8, lr=.01) | LAST | k)

def logits(fitted, x): return fitted.net.rows(x, np.arange(len(x))[None].repeat(fitted.net.members, 0))['logits']


# ---- the registries

def test_every_name():
    assert [*MODELS] == ['lenet', 'vgg16', 'vgg16_bn', 'resnet18', 'resnet14', 'resnet8', 'mlp', 'mlp-head', 'bn-head']
    assert [*ESTIMATORS] == ['sklearn-mlp', 'sklearn-logistic', 'keras-mlp', 'keras-resnet50v2', 'linear-head']
    assert not set(MODELS) & set(ESTIMATORS)

@pytest.mark.parametrize('name', [n for n in ESTIMATORS if n != 'linear-head'])
def test_every_estimator_has_a_line_and_known_settings(name):
    assert estimator(name).__doc__ and set(estimator(name).takes) <= set(RECIPE_LATER)
    assert Recipe(name).model == name
    with pytest.raises(ValueError, match='l2=0.1 is nothing'): Recipe(name, l2=.1)
    with pytest.raises(ValueError, match='no torch network'): build_model(name, (1, 28, 28), 10)

SCRIPT = """
import numpy as np, torch
from al_repro.data.dataset import Dataset
from al_repro.models.recipe import Recipe
from al_repro.models.train import fit
g = torch.Generator().manual_seed(0)
x, y = torch.randint(0, 255, (40, 1, 8, 8), generator=g, dtype=torch.uint8), torch.arange(40) % 4
data, recipe = Dataset('made up', x, y, x, y, tuple('abcd')), Recipe({name!r}, steps=1, holdout=0, checkpoint='last')
one, two = (fit(recipe, data, [np.arange(30)], [0]).net.rows(x, np.arange(40)[None])['logits'] for _ in range(2))
assert (one == two).all(), abs(one - two).max()
"""

@pytest.mark.parametrize("name", SMALL)
def test_the_first_fit_of_a_process_is_like_the_second(name):
    subprocess.run([sys.executable, '-c', SCRIPT.format(name=name)], check=True)


def test_without_keras(data, monkeypatch):
    monkeypatch.setitem(sys.modules, 'keras', None) # as if it were not installed
    with pytest.raises(ImportError, match=r'pip install "al_repro\[keras\]"'):
        fit(Recipe('keras-mlp'), data, sets(data, 1), [0])

def test_keras_on_another_backend(data, monkeypatch):
    monkeypatch.setitem(sys.modules, 'keras', SimpleNamespace(backend=SimpleNamespace(backend=lambda: 'jax')))
    with pytest.raises(ValueError, match='imported before on jax.*KERAS_BACKEND=torch'):
        fit(Recipe('keras-mlp'), data, sets(data, 1), [0])


# ---- one contract

@pytest.mark.parametrize('name', SMALL)
def test_outputs(name, data):
    ids = sets(data, 2)
    f = fit(recipe(name), data, ids, [0, 1])
    outs = outputs(f, data.x, ids)
    for o,i in zip(outs, ids):
        z, p, h = (o.rows(k, i) for k in ('logits', 'probs', 'embeds'))
        assert z.shape == p.shape == (60, 10) and h.shape == (60, 64) and z.dtype == h.dtype == np.float32
        assert np.allclose(p.sum(1), 1, atol=1e-5) and (o.rows('probs', i[::-1]) == p[::-1]).all()
    for r in evaluate(f, data.x_test, data.y_test):
        assert r['test_accuracy'] > .3 and sum(map(sum, r['confusion'])) == 360
    with pytest.raises(NoDropout, match=f"model='{name}'"): outs[0].rows('mc', ids[0])
    with pytest.raises(ValueError, match=f"model='{name}' is no torch network"): Member(f.net, 1)

@pytest.mark.parametrize('name', SMALL)
def test_same_seed_same_model_alone_or_in_a_group(name, data):
    ids = sets(data, 2)
    both = fit(recipe(name), data, ids, [0, 1])
    for seeded in (random.seed, np.random.seed, torch.manual_seed): seeded(1) # whatever else has happened
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    one = fit(recipe(name), data, ids[1:], [1])
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    z = logits(both, data.x_test)
    assert (logits(one, data.x_test)[0] == z[1]).all() and one.log[0] == both.log[1]
    if name == 'sklearn-logistic': return # it has no first weights
    assert (logits(fit(recipe(name), data, ids[1:], [2]), data.x_test)[0] != z[1]).any()

@pytest.mark.parametrize('name', SMALL)
def test_classes_without_a_label(name, data):
    for k in (1, 3):
        few = np.flatnonzero(data.y.numpy() < k)[:30]
        f = fit(recipe(name, epochs=40), data, [few], [0])
        p = outputs(f, data.x, [few])[0].rows('probs', few)
        assert p.shape == (30, 10) and np.isfinite(p).all() and (p.argmax(1) == data.y[few].numpy()).mean() > .9
        assert np.isfinite(evaluate(f, data.x_test, data.y_test)[0]['test_log_loss'])

@pytest.mark.parametrize('name', SMALL)
def test_hold_out(name, data):
    r = Recipe(name, epochs=8, lr=.01)
    log = fit(r, data, sets(data, 1), [0]).log[0]
    assert 0 < log['val_accuracy'] <= 1 and 1 <= log['epoch'] <= 8
    seen = []
    fit(r, data, sets(data, 1), [0], progress=lambda *a: seen.append(a))
    assert seen[0] == ((1, 1) if name == 'sklearn-logistic' else (1, 8))

@needs_keras
def test_resnet50v2(data):
    big = data.resized(32)
    small = replace(big, x=big.x[:48], y=big.y[:48], x_test=big.x_test[:16], y_test=big.y_test[:16])
    r = Recipe('keras-resnet50v2', epochs=2, optimizer='rmsprop', lr=2e-5, frozen=True, pixels='-1..1', **LAST)
    f = fit(r, small, [np.arange(40)], [0])
    z = f.net.rows(small.x, np.arange(48)[None])
    assert z['logits'].shape == (1, 48, 10) and z['embeds'].shape == (1, 48, 64) and (z['embeds'] >= 0).all()
    e = f.net.models[0]
    with torch.no_grad(): p = e.model(e.backbone(small.x)).numpy()
    assert np.allclose(torch.tensor(z['logits'][0]).softmax(1), p, atol=1e-4)
    r = Recipe('keras-resnet50v2', weights='no such file', **LAST)
    with pytest.raises(ValueError, match='choose weights=None'): fit(r, small, [np.arange(40)], [0])


# ---- warm starts

@pytest.mark.parametrize('name', WARM)
def test_warm_runs_resume_and_replay(name, data, tmp_path):
    p = replace(SMOKE, recipe=replace(SMOKE.recipe, model=name, warm=True))
    spec, shared = Spec.make('margin'), {}
    full = run_group(p, spec, [0], data, tmp_path/'full', shared)[0]
    # goes on from the same first round
    other = run_group(p, Spec.make('entropy'), [0], data, tmp_path/'full', shared)[0]
    assert same_run(other, run_group(p, Spec.make('entropy'), [0], data, tmp_path/'alone')[0])
    cold = run_group(replace(p, recipe=replace(p.recipe, warm=False)), spec, [0], data, tmp_path/'cold')[0]
    cold, warm = ([r['test_log_loss'] for r in one['rounds'][:2]] for one in (cold, full))
    assert cold[0] == warm[0] and cold[1] != warm[1]
    for cut in range(p.rounds + 1):
        f = path_of(tmp_path/f'{cut}', p, spec, 0, full['identity'])
        f.parent.mkdir(parents=True)
        write_json(f, full | dict(rounds=full['rounds'][:cut], done=False))
        assert same_run(run_group(p, spec, [0], data, tmp_path/f'{cut}')[0], full)
    assert [x['test_log_loss'] for x in replay(full, p.recipe, data)] == [x['test_log_loss'] for x in full['rounds']]

def test_warm_needs_the_round_before(data):
    r = recipe('sklearn-mlp', warm=True)
    with pytest.raises(ValueError, match='needs previous='): fit(r, data, sets(data, 1), [0], 1)
    with pytest.raises(ValueError, match="set checkpoint='last'"): Recipe(warm=True)


# ---- runs

def test_workers_do_not_matter(data, tmp_path, ready_workers):
    p = replace(SMOKE, recipe=replace(SMOKE.recipe, model='sklearn-mlp'))
    for n in (1, 2): assert run([p], tmp_path/f'{n}', ['margin'], 2, workers=n, progress=False) == 0
    files = sorted((tmp_path/'1').rglob('*.json'))
    assert len(files) == 2
    for f in files: assert same_run(read_json(f), read_json(tmp_path/'2'/f.relative_to(tmp_path/'1')))

MORE = {'egl': "model='sklearn-logistic' is no torch network",
        'dbal_entropy': "model='sklearn-logistic' gives no Monte Carlo samples"}

@pytest.mark.parametrize('spec, error', MORE.items())
def test_strategies_that_ask_for_more(spec, error, data, tmp_path):
    p = replace(SMOKE, recipe=replace(SMOKE.recipe, model='sklearn-logistic'))
    with pytest.raises(ValueError, match=error): run_group(p, Spec.make(spec), [0], data, tmp_path)


# ---- records from before

NETS = dict( # of a torch network, by SGD
    momentum=.9, milestones=(1,), augment=('crop',), weight_decay=5e-4, init='torch', mean=(.5,), sd=(.25,))
WARM = dict(warm=True, fresh_optimizer=True) # of one that goes on from round to round
FIRST = {'model', 'epochs', 'min_steps', 'steps', 'batch', 'lr', 'l2', 'holdout',
         'checkpoint', 'checkpoint_after', 'patience'}

def test_a_recipe_without_later_settings_is_what_it_was():
    assert set(Recipe().json()) == FIRST and json.loads(json.dumps(Recipe().json())) == Recipe().json()
    new = recipe('keras-resnet50v2', optimizer='rmsprop', warm=True, weights='imagenet', frozen=True, pixels='0..255')
    assert set(new.json()) == FIRST | set(RECIPE_LATER) - {*NETS, 'fresh_optimizer'} and Recipe(**new.json()) == new
    net = recipe('resnet8', optimizer='sgd', **NETS, **WARM)
    assert set(net.json()) == FIRST | {'optimizer', *NETS, *WARM}
    assert Recipe(**json.loads(json.dumps(net.json()))) == net

def test_identity_depends_on_later_settings():
    other = dict(optimizer='rmsprop', warm=True, weights='imagenet', frozen=True, pixels='-1..1')
    assert {*other, *NETS, *WARM} == set(RECIPE_LATER) and FIRST | set(RECIPE_LATER) == {f.name for f in fields(Recipe)}
    base = replace(SMOKE, recipe=recipe('keras-resnet50v2'))
    every = [base] + [replace(base, recipe=replace(base.recipe, **{k: v})) for k,v in other.items()]
    sgd = replace(SMOKE, recipe=recipe('resnet8', optimizer='sgd'))
    alone = [dict(mean=NETS['mean'], sd=NETS['sd'])] + [{k: v} for k,v in NETS.items() if k not in ('mean', 'sd')]
    every += [sgd] + [replace(sgd, recipe=replace(sgd.recipe, **o)) for o in (*alone, dict(warm=True), WARM)]
    assert len({identity(p, Spec.make('margin'), 'a') for p in every}) == len(every) == 15

@pytest.mark.parametrize('folder', ['results', 'tests/records'])
def test_committed_records_keep_their_identity(folder):
    if not (ROOT/folder).is_dir(): pytest.skip(f'no {folder}')
    records = load_records(ROOT/folder)[0]
    for r in records:
        p = from_json(r['protocol'])
        assert p.json() == r['protocol']
        if stale_reason(r): continue
        spec = Spec.make(r['spec']['name'], **r['spec']['options'])
        assert identity(p, spec, r['data']['fingerprint']) == r['identity']

def test_documents_through_the_runner(tmp_path):
    from al_repro.data.text import text_dataset
    rng = np.random.default_rng(0)
    subjects = 'cook', 'sail', 'chess'
    def words(c): return [f'{subjects[c]}{i}' for i in range(6)]*3 + ['the', 'and'] # which all share
    def docs(n):
        y = rng.integers(0, 3, n)
        return [' '.join(rng.choice(words(c), 8)) for c in y], y
    texts = text_dataset('newsgroups', docs(500), docs(60), subjects, dimensions=5)
    p, = protocols('diverse-minibatch', 'newsgroups', 'smoke')
    for s in p.strategies: run_group(p, s, [0], texts, tmp_path)
    records, damaged = load_records(tmp_path)
    assert not damaged and len(records) == len(p.strategies) and all(r['done'] and not stale_reason(r) for r in records)
    accuracy = {r['label']: r['rounds'][-1]['test_accuracy'] for r in records}
    assert accuracy['random'] > .8 and accuracy['margin'] > .8, accuracy
