"""Everything that touches a tensor gives on a second device what it gives on the CPU, and runs there.

The device is false (falsecuda.py): no GPU is needed, and what a GPU would refuse is refused.
"""
import numpy as np, pytest, torch
import falsecuda
from al_repro.select import balls, facility, herding, kcenter, kmeans, topk
from al_repro.data.dataset import Dataset
from al_repro.data.catalog import load
from al_repro.models.nets import MODELS, Member
from al_repro.models.outputs import evaluate, outputs
from al_repro.data.pool import Pool
from al_repro.models.pretext import TASKS, Pretext
from al_repro.models.learned import learn
from al_repro.query.spec import build, known
from al_repro.query.strategy import select_many
from al_repro.models.recipe import Recipe
from al_repro.models.train import fit
from al_repro.cli import main as cli
from al_repro.cli.asked import specs_of
from al_repro.runs.paper import protocols
from al_repro.runs.records import load_records
from al_repro.runs.group import run_group
from al_repro.runs.records import same_run
from al_repro.runs.starts import make_query
from al_repro.strategies.bal import two_nearest
from al_repro.strategies.dfal import deepfool, deepfool_loop

why = f'torch {torch.__version__} has no {", ".join(falsecuda.MISSING)}'
pytestmark = pytest.mark.skipif(bool(falsecuda.MISSING), reason=why)

# What does the work of a pass: on the device, never beside it
WORK = {'convolution', 'convolution_backward', 'mm', 'addmm', 'bmm', 'baddbmm', '_fused_adam_', 'native_batch_norm',
        'max_pool2d_with_indices', 'cudnn_batch_norm', '_cdist_forward', 'native_dropout'}

def on(data, device): return data.to(device) if device != 'cpu' else data

def plain(out): # numbers of any kind as float64 arrays
    if isinstance(out, torch.Tensor): out = out.cpu()
    return np.asarray(out, np.float64)

# Small exact sums that are taken in float64 on the CPU whatever the device, as the pages of these functions say
BESIDE = dict(
    resized={'mm', 'bmm'}, facility={'mm'}, submodular={'mm'}, fass={'mm'}, assign={'mm'}, clustered={'mm'},
    wclustered={'mm'}, egl={'mm', 'bmm'}, robust_coreset={'addmm'}, bal={'mm', 'addmm', '_cdist_forward'},
    dropquery={'mm'})

def refuse_work_beside(count, name=None):
    "No work is done by the CPU, but for what `name` may do there."
    odd = WORK & set(count['cpu']) - BESIDE.get(name, set())
    assert not odd, {k: count['cpu'][k] for k in odd}

def agree(run, name=None, rtol=1e-5, on_device=()):
    """`run('cpu')` and `run('cuda')` give the same arrays.

    The device does the work, at least the operators `on_device`."""
    torch.manual_seed(0)
    want = [plain(v) for v in run('cpu')]
    with falsecuda.false_cuda() as ran:
        torch.manual_seed(0)
        got = [plain(v) for v in run('cuda')]
        count = {k: dict(v) for k,v in ran.items()}
    assert len(want) == len(got)
    for a, b in zip(want, got): np.testing.assert_allclose(b, a, rtol=rtol, atol=rtol*1e-2)
    refuse_work_beside(count, name)
    assert set(on_device) <= set(count['cuda']), count['cuda']

@pytest.fixture(autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

def photos(side=12, n=60, channels=3): # 40 images to train on, 20 to test on, of four classes that differ in brightness
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 4
    x = (torch.randint(0, 156, (n, channels, side, side), generator=g) + 25*y[:,None,None,None]).to(torch.uint8)
    return Dataset('photos', x[:40], y[:40], x[40:], y[40:], tuple('abcd'))

IDS = [np.arange(16), np.arange(8, 24)]


# ---- the device itself

def test_the_false_device_is_as_strict_as_cuda():
    there = torch.cuda.is_available()
    with falsecuda.false_cuda() as ran:
        x, here = torch.ones(2, 3).to('cuda'), torch.ones(2, 3)
        assert torch.cuda.is_available() and x.is_cuda and x.device == torch.device('cuda:0')
        assert (x + torch.tensor(1.)).sum().item() == 12 and x[torch.tensor([0])].tolist() == [[1, 1, 1]]
        refused = [lambda: x + here, lambda: torch.cat([x, here]), lambda: x @ here.T, lambda: here[:, x[0].long()],
                   lambda: torch.rand(2, generator=torch.Generator(), device='cuda'), lambda: torch.add(x, here, out=x),
                   lambda: torch.randperm(3, generator=torch.Generator('cuda')), lambda: here.mul_(x)]
        for f in refused:
            with pytest.raises(falsecuda.DeviceError): f()
        for f in (x.numpy, lambda: np.asarray(x)):
            with pytest.raises(TypeError, match='cuda:0'): f()
        assert ran['cuda']['add'] == 1 and 'add' not in ran['cpu']
    assert torch.cuda.is_available() == there and isinstance(torch.Generator(), torch.Generator)


# ---- networks

@pytest.mark.parametrize('name', MODELS)
def test_network(name, narrow):
    data, ids = photos(32 if name.startswith('vgg16') else 12), [np.arange(6), np.arange(4, 10)]
    def run(device):
        d = on(data, device)
        f = fit(Recipe(name, epochs=1, batch=3), d, ids, [0, 1])
        o = outputs(f, d.x, [np.arange(5)]*2, 2)
        mc = [o[1].rows('mc', np.arange(5))] if f.net.first_dropout else []
        scores = [e['test_log_loss'] for e in evaluate(f, d.x_test[:4], d.y_test[:4])]
        return [o[1].rows('probs', np.arange(5)), o[0].rows('embeds', np.arange(5)), *mc, scores]
    images = ['convolution', 'convolution_backward']*(name not in ('mlp', 'mlp-head', 'bn-head'))
    agree(run, None, 1e-3, ['_fused_adam_', 'baddbmm'] + images)

RECIPES = dict(
    augmented=dict(augment=('crop', 'flip', 'zoom', 'colour'), holdout=.25),
    patient=dict(optimizer='sgd', momentum=.9, patience=1),
    warm=dict(optimizer='rmsprop', checkpoint='last', holdout=0, warm=True),
    penalty=dict(l2=.01, milestones=(1,)))

@pytest.mark.parametrize('name', RECIPES)
def test_recipe(name):
    data, r = photos(), Recipe('lenet', epochs=2, batch=8, **RECIPES[name])
    def run(device):
        d = on(data, device)
        f = fit(r, d, IDS, [0, 1])
        if r.warm: f = fit(r, d, IDS, [0, 1], 1, previous=f)
        assert all(w.device.type == device for w in f.net.parameters())
        return [outputs(f, d.x, [np.arange(9)]*2)[1].rows('probs', np.arange(9)), [l['epoch'] for l in f.log]]
    agree(run, None, 1e-3, ['convolution_backward'])

def test_estimator():
    data = photos()
    def run(device):
        d = on(data, device)
        f = fit(Recipe('sklearn-mlp', epochs=2, batch=8), d, IDS, [0, 1])
        losses = [e['test_log_loss'] for e in evaluate(f, d.x_test, d.y_test)]
        return [outputs(f, d.x, [np.arange(9)]*2)[1].rows('probs', np.arange(9)), losses]
    agree(run)

@pytest.mark.parametrize('task', TASKS)
def test_pretext_task(task):
    data = photos()
    net = 'lenet' if task == 'rotation' else 'mlp'
    p = Pretext(task, net, epochs=1, batch=16, augment=('zoom', 'flip', 'colour', 'crop'))
    def run(device):
        res = learn(on(data, device), p)
        return [res.features, res.losses, res.features_test, res.history]
    agree(run, None, 1e-3, ['convolution_backward'] if task == 'rotation' else ['addmm', 'mm'])

def test_resized():
    data = photos()
    def run(device):
        d = on(data, device).resized(8)
        assert d.x.device.type == device
        return [d.x]
    agree(run, 'resized')


# ---- kernels

def points(device):
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    return torch.cat([x, x[:20]]).to(device) # some of them twice

KERNELS = dict(
    k_center=lambda x: [kcenter.k_center(x, 20), kcenter.k_center(x, 9, x[:4]), kcenter.cover_radius(x, x[:3])],
    top_k=lambda x: [topk.top_k(x[:,0], 4)],
    facility=lambda x: [facility.facility_location(x, 12), facility.coverage(x, [1, 2])],
    weighted_kmeans=lambda x: [kmeans.weighted_kmeans(x, 9, np.linspace(.1, 1, 320)).labels],
    lloyd=lambda x: [kmeans.lloyd(x, x[:5].clone()).labels],
    balls=lambda x: [*balls.ball_cover(x, 300, 2., x[:3]), balls.pure_delta(x, (x[:,0] > 0).long().cpu(), .8)],
    herding=lambda x: [herding.herding(x, 30, 1.5, x[:2]), herding.soft_coverage(x, x[:9])],
    assign=lambda x: [kmeans.assign_distinct(x, x[:5])],
    two_nearest=lambda x: list(two_nearest(x, x[:4])))

KERNEL_OPS = dict(k_center=['addmm'], top_k=[], facility=['addmm'], weighted_kmeans=['addmm'], lloyd=['addmm'],
                  assign=[], two_nearest=['addmm'], balls=['addmm'], herding=['mm'])

@pytest.mark.parametrize('name', KERNELS)
def test_kernel(name):
    agree(lambda device: KERNELS[name](points(device)), name, 1e-4, KERNEL_OPS[name])

def test_deepfool():
    data = photos()
    def run(device):
        d = on(data, device)
        net = Member(fit(Recipe('lenet', steps=2, batch=8), d, IDS, [0, 1]).net)
        return [deepfool(net, d.x[:6]).distance, deepfool_loop(net, d.x[:2].float()/255, max_iter=3)[0]]
    agree(run, None, 1e-2, ['convolution_backward'])


# ---- strategies

SAMPLED = 'bald', 'batchbald', 'powerbald', 'variation_ratio', 'mean_std', 'dbal_entropy', 'dbal_least_confidence'
SHORT = dict(
    vaal='epochs=1, width=8, latent=4', pal='epochs=1, min_steps=2, model="mlp", sub_queries=2, tune=1',
    pt4al='cycles=3', dal='max_epochs=3, mini_queries=2, balanced=true', activeft='steps=3', bal='cycles=2',
    dfal='iterations=2', robust_coreset='time_limit=2', **dict.fromkeys(SAMPLED, 'samples=4'))
MORE = [
    'dal(on="pixels", max_epochs=2, mini_queries=1, train_on="all")', 'egl(layers="last")',
    'activeft(form="separate", steps=3)', 'pal(classes=0, epochs=1, min_steps=2, model="resnet8")',
    'bal(cycles=2, by="loss")', 'bal(cycles=2, sampler="kmeans")', 'clustered(picks="nearest")',
    'submodular(similarity="distance")', 'fass(f="nearest")']
# What a strategy runs on the device; what is not named works on arrays of numbers, which lie on the CPU
HOST = {'submodular(similarity="distance")', 'fass(f="nearest")', 'egl(layers="last")'} # by numpy and scipy
RUNS = dict(
    activeft=['mm'], badge=['mm'], bald=['baddbmm'], batchbald=['mm', 'baddbmm'],
    chunk_egl=['convolution_backward'], clustered=['addmm'], coreset=['addmm'],
    dal=['baddbmm'], dfal=['convolution_backward'], egl=['convolution'], fass=['mv'], pal=['baddbmm'],
    submodular=['mv'], vaal=['bmm'], wclustered=['addmm'], typiclust=['addmm'], probcover=['addmm'],
    maxherding=['mm'], uherding=['mm'], representative=['mm'], dropquery=['convolution', 'addmm'])

@pytest.fixture(scope='module')
def fitted(): # by device: a trained group and its data
    found = {}
    def get(device):
        if device not in found:
            d = on(photos(), device)
            found[device] = d, fit(Recipe('lenet', steps=2, batch=8), d, IDS, [0, 1])
        return found[device]
    return get

@pytest.mark.parametrize('text', [*(f'{n}({SHORT[n]})' if n in SHORT else n for n in known()), *MORE])
def test_strategy(text, fitted):
    rng = np.random.default_rng(0)
    assets = dict(features=rng.normal(size=(40, 6)).astype(np.float32), losses=rng.random(40).astype(np.float32))
    def run(device):
        d, f = fitted(device)
        pools = [Pool(d.n).add(i) for i in IDS]
        outs = outputs(f, d.x, [p.ids for p in pools], 4)
        queries = [make_query(p, o, d, seed, 0, assets) for p,o,seed in zip(pools, outs, [0, 1])]
        return select_many(build(text), queries, 5)
    name = text.partition('(')[0]
    agree(run, name, 0, RUNS.get(name, []) if text not in HOST else [])


# ---- experiments, by the console script

EXPERIMENTS = {'dal': 'random,dal', 'diverse-minibatch': 'wclustered', 'bal': 'bal,pal'}

@pytest.mark.parametrize('name', EXPERIMENTS)
def test_smoke_experiment(name, tmp_path, monkeypatch):
    monkeypatch.setenv('AL_REPRO_ASSETS', str(tmp_path/'assets'))
    args = ['reproduce', name, *'--scale smoke --device auto --seeds 2 --quiet --strategies'.split(), EXPERIMENTS[name],
            '--out']
    with falsecuda.false_cuda() as ran:
        assert cli.main([*args, str(tmp_path/'cuda'), '--dry-run']) == 0
        if name != 'diverse-minibatch': assert WORK & set(ran['cuda']) and not WORK & set(ran['cpu']) - BESIDE['bal']
        assert cli.main([*args, str(tmp_path/'cuda')]) == 0
        refuse_work_beside(ran, 'bal') # also for the centres of diverse mini-batches
        assert WORK & set(ran['cuda']) or name == 'diverse-minibatch'
    records = load_records(tmp_path/'cuda')[0]
    where = 'cpu' if name == 'diverse-minibatch' else 'cuda' # scikit-learn knows no GPU
    assert {r['device'] for r in records} == {where} and all(r['done'] for r in records)
    data = load('digits')
    for p in protocols(name, 'digits', 'smoke'):
        for spec in specs_of(EXPERIMENTS[name], [p]):
            for want in run_group(p, spec, [0, 1], data, tmp_path/'cpu'):
                got, = (r for r in records if (r['identity'], r['seed']) == (want['identity'], want['seed']))
                assert same_run(got, want), (spec, want['seed'])
