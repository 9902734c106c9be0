"The same numbers inside whatever a caller has switched in torch and numpy, and all of it untouched afterwards"
import os, subprocess, sys
from importlib.util import find_spec
import numpy as np, pytest, torch
from types import SimpleNamespace
from al_repro.models import contexts, outputs
from al_repro.models.learned import embed, image_losses, learn
from al_repro.models.pretext import Pretext
from al_repro.models.contexts import CONTEXTS, global_state, inside, moved, other_seeds
from al_repro.models.recipe import Recipe
from al_repro.models.train import fit
from al_repro.select.facility import coverage, facility_location
from al_repro.select.kcenter import cover_radius, k_center
from al_repro.select.kmeans import assign_distinct, lloyd, weighted_kmeans
from al_repro.query.query import Query
from al_repro.query.spec import build, known
from al_repro.query.contract import sample_arrays, sample_model

NO_GRAD = 'torch.no_grad()', 'torch.inference_mode()'
MODES = [[mode, *(n for n in CONTEXTS if not n.startswith(('torch.no', 'torch.inf')))] for mode in NO_GRAD]
EVERY = [[n] for n in CONTEXTS] + MODES

def images(n, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 255, (n, 1, 12, 12), generator=g, dtype=torch.uint8)
DATA = SimpleNamespace(
    name='made up', x=images(40, 0), y=torch.arange(40) % 3, shape=(1, 12, 12), n_classes=3,
    x_test=images(9, 1), y_test=torch.arange(9) % 3)
ALL = np.arange(40)
POINTS = np.random.default_rng(0).normal(size=(70, 5)).astype(np.float32)

def fitted(model='lenet'): return fit(Recipe(model, epochs=2), DATA, [np.arange(20)], [3])
def trained():
    f = fitted()
    o, = outputs.outputs(f, DATA.x, [ALL])
    loss = outputs.evaluate(f, DATA.x_test, DATA.y_test)[0]['test_log_loss']
    return [*(o.rows(n, ALL) for n in ('probs', 'embeds', 'mc:4')), loss]
LATE = outputs.outputs(fitted(), DATA.x, [ALL])
def read_later():
    o, = outputs.outputs(LATE[0].group.fitted, DATA.x, [ALL])
    return [o.rows(n, ALL) for n in ('logits', 'mc:4')]
def learned():
    l = learn(DATA, Pretext(model='lenet', epochs=1))
    return [l.features, l.losses, embed(l.net, DATA.x_test), image_losses(l.net, DATA.x, l.pretext)]
def selected():
    k = weighted_kmeans(POINTS, 4)
    return [k_center(POINTS, 9), facility_location(POINTS, 9), k.centers, lloyd(POINTS, POINTS[:4]).centers,
            assign_distinct(POINTS, k.centers), cover_radius(POINTS, POINTS[:3]), coverage(POINTS, [1, 2])]

@pytest.mark.parametrize('f', [trained, read_later, learned, selected])
@pytest.mark.parametrize('names', EVERY, ids=[' '.join(n)[:40] for n in EVERY])
def test_what_a_person_calls(f, names):
    want = f()
    got, changed = inside([*names, 'global generators seeded otherwise'], f)
    assert not changed
    for g,w in zip(got, want): assert np.array_equal(g, w), np.abs(np.subtract(g, w)).max()

def test_grad_reaches_the_models_that_were_made_inside():
    with torch.inference_mode(): net = fitted('mlp').net
    assert not any(p.is_inference() for p in net.parameters())

SMALL = dict(
    vaal='epochs=1, latent=2, width=8, batch=16', pal='epochs=1, min_steps=2', activeft='steps=10',
    dal='mini_queries=2, max_epochs=3, width=16', combined='second=dal(mini_queries=1, max_epochs=2, width=8)')
@pytest.mark.parametrize('score', ['dfal', 'egl', 'chunk_egl', 'entropy', 'bald'])
@pytest.mark.parametrize('names', MODES, ids=['no_grad', 'inference_mode'])
def test_scores(score, names):
    "What figures draw is asked of the score, not of the strategy"
    a = sample_arrays() | dict(model=sample_model())
    f = lambda: known()[score].score(Query.from_arrays(**a))
    got, changed = inside([*names, 'global generators seeded otherwise'], f)
    assert not changed and np.array_equal(got, f())

@pytest.mark.parametrize('name', sorted(known()))
def test_global_generators(name):
    "No strategy draws from the generators that belong to the caller"
    if name == 'robust_coreset': pytest.importorskip('scipy')
    a = sample_arrays() | dict(model=sample_model())
    with other_seeds(0):
        before = global_state()
        build(f'{name}({SMALL[name]})' if name in SMALL else name)(Query.from_arrays(**a), 4)
        assert not moved(before)

THREADS_AFTER = """
import sys, torch
from al_repro.query.contract import sample_arrays
from al_repro.query.query import Query
from al_repro.query.spec import build
for spec in sys.argv[1:]:
    build(spec)(Query.from_arrays(**sample_arrays()), 4)
    print(torch.get_num_threads())
"""
APRICOTS = [f'submodular(optimizer={o})' for o in ('lazy', 'two-stage', 'naive', 'stochastic')]

def test_apricot_leaves_the_threads_of_torch_alone():
    "Numba starts OpenMP for all cores, and torch shares it: what a process asks of apricot first must not last"
    if not find_spec('apricot'): pytest.skip('apricot is not installed') # imported here, it would raise ours
    one = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
    env = os.environ | one | dict(NUMBA_NUM_THREADS='2', NUMBA_DISABLE_JIT='1') # nothing to compile
    done = subprocess.run([sys.executable, '-c', THREADS_AFTER, *APRICOTS], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ['1']*len(APRICOTS), done.stderr[-2000:]

def test_a_model_of_the_caller_keeps_its_dtype():
    "A forward that makes tensors counts on the default dtype of its own surroundings"
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            w = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
            self.w = torch.nn.Parameter(w.double())
        def forward(self, x): return (x + torch.zeros(4)) @ self.w @ torch.eye(3)
    x = np.random.default_rng(0).random((9, 4))
    with contexts.default_dtype(torch.float64):
        for name in ('dfal', 'egl', 'chunk_egl'):
            assert len(build(name)(Query.from_arrays(x=x, model=Model().eval()), 2)) == 2

def test_a_training_on_the_cpu_leaves_gpus_alone(monkeypatch):
    "`torch.manual_seed` seeds the generators of all GPUs, and nobody puts those back"
    seeded = []
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', seeded.append)
    fitted('mlp')
    fitted('sklearn-logistic')
    learned()
    assert not seeded
