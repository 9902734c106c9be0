"Passes stay under 2 GiB whatever the size of the images: measured on meta tensors, which have shapes and no numbers"
import numpy as np, pytest, torch
from al_repro.models import memory, outputs as outputs_
from al_repro.query import query
from al_repro.models.memory import Live, row_bytes
from al_repro.models.nets import Member, build_model, init_weights
from al_repro.models.outputs import Group, evaluate, forward_pass, mc_pass, outputs
from al_repro.models.learned import embed
from al_repro.query.query import ModelSource, Query
from al_repro.query.spec import build
from al_repro.models.loop import Fitted
from al_repro.models.recipe import Recipe
from al_repro.models.train import val_hits
from al_repro.strategies import dfal, egl, pal

GIB = 2**30
SIDES, MEMBERS = {32: 450, 96: 200, 224: 60}, 20 # pixels: rows of a member, too many for one part

class Measured(Live):
    "As `Live`; what is fetched to the CPU has no numbers either, so it comes as zeros."
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        fetch = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.to) and args[0].device.type == 'meta'
        if fetch and torch.device('cpu') in (kwargs.get('device'), *args[1:]):
            return torch.zeros(1, dtype=args[0].dtype).expand(args[0].shape)
        return super().__torch_dispatch__(func, types, args, kwargs)

def group(name, side, members=MEMBERS):
    with torch.device('meta'): return build_model(name, (3, side, side), 10, members).eval()

def pool(side, rows=10): return torch.empty(rows, 3, side, side, dtype=torch.uint8, device='meta')
def measured(net, *given):
    "Counts what comes from here on: what a row takes is found before"
    row_bytes(net, (net.members, 1, *given[0].shape[1:]))
    return Measured([*given, *net.parameters(), *net.buffers()])

def generators(n=MEMBERS): return [torch.Generator().manual_seed(i) for i in range(n)]

@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('name', ['lenet', 'vgg16', 'resnet18', 'mlp'])
def test_passes_of_a_group(name, side):
    net, x = group(name, side), pool(side)
    ids = np.zeros((MEMBERS, SIDES[side]), np.int64)
    with measured(net, x) as live: forward_pass(net, x, ids)
    assert live.peak < 2*GIB, f'forward_pass: {live.peak/GIB:.1f} GiB'
    net.train()
    val, y = (torch.zeros(*n, dtype=torch.long, device='meta') for n in ((MEMBERS, SIDES[side]), (10,)))
    with measured(net, x) as live: val_hits(net, x, y, val)
    assert live.peak < 2*GIB, f'val_hits: {live.peak/GIB:.1f} GiB'

@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('name', ['lenet', 'mlp'])
def test_samples_of_a_group(name, side):
    net, x = group(name, side), pool(side)
    with torch.inference_mode(False), measured(net, x) as live:
        mc_pass(net, x, np.zeros((MEMBERS, SIDES[side]), np.int64), 100, generators())
    assert live.peak < 2*GIB, f'{live.peak/GIB:.1f} GiB'

@pytest.mark.parametrize('side', SIDES)
def test_features(side):
    net, x = group('resnet18', side, 1), pool(side, 10*SIDES[side])
    with measured(net, x) as live: assert embed(net, x).shape == (10*SIDES[side], 512)
    assert live.peak < 2*GIB, f'{live.peak/GIB:.1f} GiB'

@pytest.mark.parametrize('side', SIDES)
def test_pal(side):
    net = group('resnet8', side)
    image = np.zeros((1, 3, side, side), np.uint8)
    q = Query.from_arrays(x=np.broadcast_to(image, (SIDES[side], *image.shape[1:])), labelled=[0], n_classes=10)
    q.device = torch.device('meta')
    with measured(net, pool(side)) as live: pal.pool_scores(net, [q]*MEMBERS)
    assert live.peak < 2*GIB, f'{live.peak/GIB:.1f} GiB'

@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('name', ['lenet', 'resnet18'])
def test_deepfool(name, side, monkeypatch):
    "The rows of a step are as many as fit together with the maps that the gradient needs"
    model, seen = Member(group(name, side, 1)), []
    def step(model, rows, s, i, *_):
        seen.append(len(i))
        return i
    monkeypatch.setattr(dfal, '_step', step)
    state = dfal.Fooled(*[None]*5, torch.empty(1024, 3, side, side, device='meta'))
    assert len(dfal._advance(model, None, state, np.arange(1024), .02, None)) == 1024
    x = torch.empty(max(seen), 3, side, side, device='meta')
    classes = torch.zeros(max(seen), 10, dtype=torch.long, device='meta')
    with Live([x, *model.parameters(), *model.buffers()]) as live: dfal.boundary_step(model, x, classes)
    assert live.peak < 2*GIB, f'{max(seen)} rows: {live.peak/GIB:.1f} GiB'


# ---- out of memory all the same

def test_parts_are_halved_when_memory_runs_out(monkeypatch):
    "A pass that does not fit is tried again with fewer rows, and gives the same numbers"
    net = build_model('mlp', (1, 8, 8), 10, 2).eval()
    for i,w in enumerate(net.parameters()): torch.nn.init.normal_(w, generator=torch.Generator().manual_seed(i))
    x = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids, y = np.arange(100)[None].repeat(2, 0), torch.arange(100) % 10
    def results():
        hits = val_hits(net.train(), x, y, torch.as_tensor(ids))
        net.eval()
        scores = evaluate(Fitted(net, Recipe('mlp'), [0, 1], 0), x, y)
        passed = forward_pass(net, x, ids)['logits'], mc_pass(net, x, ids, 3, generators(2))
        return [*passed, hits, [s['test_log_loss'] for s in scores]]
    want, body, tries = results(), type(net.body).forward, []
    def hungry(self, h):
        rows = h.shape[1]
        tries.append(rows)
        if rows > 30: raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return body(self, h)
    monkeypatch.setattr(type(net.body), 'forward', hungry)
    for a, b in zip(want, results()): np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    assert max(tries) > 30 and 25 in tries

def test_what_a_row_takes_does_not_change_the_model():
    net = build_model('vgg16', (3, 32, 32), 10, 2)
    before = {k: v.clone() for k,v in net.state_dict().items()}
    state = torch.get_rng_state()
    assert row_bytes(net.eval(), (2, 1, 3, 32, 32)) > 2*2*64*32*32*4 # two maps of 64 channels for each of two members
    assert torch.equal(state, torch.get_rng_state())
    for k,v in net.state_dict().items(): assert torch.equal(v, before[k]) and v.device.type == 'cpu'


# ---- scores and trainings that were not bounded

@pytest.mark.parametrize('name, side, rows', [('lenet', 224, 100), ('resnet18', 224, 40), ('vgg16', 96, 100)])
def test_chunk_egl(name, side, rows, monkeypatch):
    "A chunk goes through in parts, and the gradients of all classes are not held at once"
    with torch.device('meta'): model, x = Member(build_model(name, (3, side, side), 3).eval()), pool(side, rows)
    monkeypatch.setattr(egl, 'check_reach', lambda *_: None) # looks at numbers
    row_bytes(model, (1, 3, side, side), grad=True)
    with Measured([x, *model.parameters(), *model.buffers()]) as live: assert len(egl.chunk_egl_score(model, x)) == rows
    assert live.peak < 2*GIB, f'{live.peak/GIB:.1f} GiB'

def small_pool(n=60, side=8):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 1, side, side)).astype(np.uint8)

def weighted(name, shape, members=1):
    return init_weights(build_model(name, shape, 10, members), generators(members)).eval()

def test_chunk_egl_in_parts_gives_the_same(monkeypatch):
    model, x = Member(weighted('mlp', (1, 8, 8))), small_pool()
    want = egl.chunk_egl_score(model, x, 25)
    few = 7*row_bytes(model, (1, 1, 8, 8), grad=True)
    for at in (memory, egl): monkeypatch.setattr(at, 'LIMIT', few) # 7 rows, and the gradients of a class or two
    np.testing.assert_allclose(egl.chunk_egl_score(model, x, 25), want, rtol=1e-5)

def test_chunk_egl_when_memory_runs_out(monkeypatch):
    model, x = Member(weighted('mlp', (1, 8, 8))), small_pool()
    want, forward = egl.chunk_egl_score(model, x, 25), Member.forward
    def hungry(self, h):
        if len(h) > 6: raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return forward(self, h)
    monkeypatch.setattr(Member, 'forward', hungry)
    np.testing.assert_allclose(egl.chunk_egl_score(model, x, 25), want, rtol=1e-5)

SAMPLERS = ['bald', 'dbal_entropy', 'dbal_least_confidence', 'mean_std', 'variation_ratio', 'suggestive_annotation']

@pytest.mark.parametrize('name', SAMPLERS)
def test_samples_of_one_member_that_take_too_much(name, monkeypatch):
    "400 rows, 100 samples: 1.6 MB a member. Where a fifth of one may be held, scores see a few rows at a time."
    net, x = weighted('mlp', (1, 8, 8), 2), torch.as_tensor(small_pool(400))
    ids = [np.arange(400), np.arange(400)]
    def picks():
        outs = outputs(Fitted(net, Recipe('mlp'), [0, 1], 0), x, ids, mc_samples=100)
        def asked(o): # five rows of it are labelled
            return Query(ModelSource(o, x), ids[0][5:], ids[0][:5], np.arange(5), 10, np.random.default_rng(0))
        return [build(name)(asked(o), 20).tolist() for o in outs], outs[0].group
    want, _ = picks()
    monkeypatch.setattr(Group, 'most', 200_000); monkeypatch.setattr(query, 'SAMPLED', 100_000)
    drawn, real = [], outputs_.mc_pass
    monkeypatch.setattr(outputs_, 'mc_pass', lambda *a: drawn.append(real(*a)) or drawn[-1])
    got, held = picks()
    assert got == want and max(d.nbytes for d in drawn) <= 200_000 and len(drawn) > 2
    assert not [k for k in held.cache if 'mc' in k or isinstance(k, tuple)]

TRAINED = ['vaal(epochs=2, width=16, batch=16)', 'pal(model=mlp, epochs=2, min_steps=4, batch=16)',
           'dal(max_epochs=3, mini_queries=2, batch=16)', 'dal(on=pixels, max_epochs=3, mini_queries=2, batch=16)']

@pytest.mark.parametrize('spec', TRAINED)
def test_what_is_trained_on_is_fetched_where_it_does_not_fit(spec, monkeypatch):
    "The same picks, and no more rows are there at once than a batch, or a part, has"
    x = small_pool(300)
    embeds = x.reshape(300, -1)[:,:16].astype(np.float32)/255
    arrays = dict(x=x, embeds=embeds, labelled=np.arange(40), labels=np.arange(40) % 10, n_classes=10)
    def picks(): return build(spec).many([Query.from_arrays(**arrays, seed=s) for s in (0, 1)], 9)
    want, made, fetch = picks(), [], memory.Fetched.__getitem__
    def watched(self, key):
        made.append(fetch(self, key))
        return made[-1]
    monkeypatch.setattr(memory.Fetched, '__getitem__', watched)
    monkeypatch.setattr(memory, 'LIMIT', 1)
    assert [i.tolist() for i in picks()] == [i.tolist() for i in want]
    assert made and max(m.shape[1] for m in made) <= 40
