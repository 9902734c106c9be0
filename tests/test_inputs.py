"What `Query.from_arrays` is given, and whether a copy is made of it: one table"
import numpy as np, pandas as pd, pytest, torch
from scipy import sparse
from al_repro.query.query import Query
from al_repro.query.spec import build, known
from al_repro.query.contract import sample_arrays, sample_model

PROBS = np.random.default_rng(0).dirichlet(np.ones(3), 12)
NUMBERS = np.random.default_rng(1).normal(size=(12, 4)).round(2)
HOT = np.eye(3)[np.arange(12) % 3]

def frame(a, **kw): return pd.DataFrame(a, **kw)
def masked(a): return np.ma.masked_greater(a, 1)
def with_gap(a): return frame(np.where(a > 1, np.nan, a)).astype('Float64')

TAKEN = { # name -> argument, what is given, what a query then holds
    'tensor': ('embeds', torch.tensor(NUMBERS), NUMBERS),
    'tensor with a gradient': ('embeds', torch.tensor(NUMBERS, requires_grad=True), NUMBERS),
    'tensor, bfloat16': ('probs', torch.tensor(PROBS).bfloat16(), PROBS),
    'tensor, float16': ('probs', torch.tensor(PROBS).half(), PROBS),
    'bfloat16, cast by hand': ('probs', torch.tensor(PROBS).bfloat16().float().numpy(), PROBS),
    'float16': ('probs', PROBS.astype(np.float16), PROBS),
    'long double': ('embeds', NUMBERS.astype(np.longdouble), NUMBERS),
    'frame': ('probs', frame(PROBS), PROBS),
    'frame, float32': ('embeds', frame(NUMBERS).astype(np.float32), NUMBERS),
    'nullable frame': ('embeds', frame(NUMBERS).astype('Float64'), NUMBERS),
    'nullable frame of integers': ('embeds', frame((10*NUMBERS).round()).astype('Int64'), (10*NUMBERS).round()),
    'frame of several types': ('embeds', frame(HOT > 0).astype({0: bool, 1: int, 2: float}), HOT),
    'series': ('losses', pd.Series(NUMBERS[:, 0]), NUMBERS[:, 0]),
    'big-endian integers': ('x', (100*NUMBERS).astype('>i4'), (100*NUMBERS).astype(int)),
    'big-endian floats': ('embeds', NUMBERS.astype('>f8'), NUMBERS),
    'uint16': ('x', np.arange(24).reshape(12, 2).astype(np.uint16), np.arange(24).reshape(12, 2)),
    'bool one-hots': ('probs', HOT > 0, HOT),
    'integer one-hots': ('probs', HOT.astype(int), HOT),
    'bool images': ('x', HOT > 0, HOT),
    'bool embeddings': ('embeds', HOT > 0, HOT),
    'lists': ('embeds', NUMBERS.tolist(), NUMBERS),
    'masked array without a gap': ('embeds', np.ma.array(NUMBERS), NUMBERS),
    'columns from behind': ('embeds', NUMBERS[:, ::-1], NUMBERS[:, ::-1]),
}
REFUSED = { # name -> argument, what is given, what the error says
    'scipy sparse': ('embeds', sparse.csr_array(NUMBERS), 'embeds is sparse; pass embeds.toarray()'),
    'torch sparse': ('embeds', torch.tensor(NUMBERS).to_sparse(), 'embeds is sparse; pass embeds.to_dense()'),
    'masked': ('embeds', masked(NUMBERS), 'masked entries'),
    'nullable frame with gaps': ('embeds', with_gap(NUMBERS), 'is NaN or infinite'),
    'text': ('embeds', np.array([['a']]*12), 'dtype'),
    'frame of text': ('embeds', frame([['a']]*12), 'dtype'),
    'ragged': ('embeds', [[1.], [1., 2.]], 'rows of different lengths'),
    'complex': ('embeds', NUMBERS*1j, 'dtype complex128; pass real numbers'),
    'beyond rounding': ('probs', PROBS*1.005, 'sums to 1.005'),
    'one number': ('embeds', 3., 'shape ()'),
}

@pytest.mark.parametrize('name', TAKEN)
def test_taken(name):
    key, given, want = TAKEN[name]
    a = Query.from_arrays(**{key: given}).rows(key, np.arange(12))
    assert a.dtype.isnative and a.dtype in (np.float32, np.float64, np.int64, np.int32)
    torch.as_tensor(a) # whatever a strategy does with it
    assert np.allclose(a, want, atol=4e-3 if key == 'probs' else 1e-6)
    if key == 'probs': assert abs(a.sum(1) - 1).max() < 1e-5

@pytest.mark.parametrize('name', REFUSED)
def test_refused(name):
    key, given, why = REFUSED[name]
    with pytest.raises(ValueError) as e: Query.from_arrays(**{key: given})
    assert why in str(e.value) and key in str(e.value)

@pytest.mark.parametrize('make', [
    list, np.array, torch.tensor, pd.Series, pd.Index,
    lambda v: pd.Series(v, dtype='Int64'), lambda v: np.array(v, '>i4')])
def test_ids_and_labels(make):
    q = Query.from_arrays(probs=PROBS, labelled=make([3, 5]), labels=make([2, 0]))
    assert q.labelled.tolist() == [3, 5] and q.labels.tolist() == [2, 0]

@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('key', ['probs', 'embeds', 'features', 'x', 'mc'])
def test_views(key, dtype, tmp_path):
    "Neither an array nor a memory-mapped file is copied"
    a = np.stack([PROBS]*2, 1) if key == 'mc' else PROBS
    a = a.astype(dtype)
    np.save(tmp_path/'a.npy', a)
    for given in (a, np.load(tmp_path/'a.npy', mmap_mode='r'), torch.from_numpy(a)):
        held = Query.from_arrays(**{key: given}).source.arrays[key]
        assert np.shares_memory(held, given.numpy() if isinstance(given, torch.Tensor) else given)

def test_checks_in_chunks():
    "What the checks make on the way is small beside the array"
    import tracemalloc
    a = np.full((200_000, 100), .01, np.float32)
    tracemalloc.start()
    Query.from_arrays(probs=a, embeds=a)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < a.nbytes/4, f'{peak/1e6:.0f} MB beside {a.nbytes/1e6:.0f} MB'

DEVICES = ('cpu', True), (torch.device('cpu'), True), ('gpu', False), ('cuda:99', False), (3.5, False)

@pytest.mark.parametrize('device, ok', DEVICES)
def test_device(device, ok):
    if ok:
        assert Query.from_arrays(probs=PROBS, device=device).also([1]).device == torch.device('cpu')
        return
    with pytest.raises(ValueError, match='device='): Query.from_arrays(probs=PROBS, device=device)

@pytest.mark.parametrize('name', [
    'vaal(epochs=1, width=8)', 'pal(epochs=1, min_steps=2)', 'dal(on=pixels, mini_queries=1, max_epochs=2)',
    'egl', 'chunk_egl', 'dfal'])
@pytest.mark.parametrize('dtype', [np.int64, np.float32, np.float64])
def test_unscaled_images(name, dtype):
    a, model = sample_arrays(), sample_model()
    def pick(**more): return build(name)(Query.from_arrays(**a | more, model=model), 3)
    with pytest.raises(ValueError, match='x goes from 0 to 25'): pick(x=a['x'].astype(dtype))
    scaled = pick(x=a['x']/np.float32(255))
    if name.partition('(')[0] != 'vaal': assert (scaled == pick()).all()

def test_unknown_classes():
    "Labels of classes that no model knows yet, for every strategy that reads them"
    a = sample_arrays() | dict(n_classes=6)
    a['labels'] = np.r_[5, a['labels'][1:]]
    for name in ('margin', 'entropy', 'bald(samples=8)', 'egl(layers=last)', 'pal(epochs=1, min_steps=2)', 'bal',
                 'combined', 'fass', 'clustered', 'submodular'):
        assert len(build(name)(Query.from_arrays(**a), 3)) == 3

SHIFTED = { # they say so where they are defined
    'badge', 'cal', 'dal', 'activeft', 'suggestive_annotation', 'dropquery', 'maxherding', 'probcover', 'uherding'}
@pytest.mark.parametrize('name', sorted(known()))
def test_a_shift_of_all_rows(name):
    "Embeddings far from 0 change only what is defined by the way from 0"
    options = dict(vaal='(epochs=1, width=8)', pal='(epochs=1, min_steps=2)', dal='(mini_queries=2, max_epochs=20)',
                   activeft='(steps=10)')
    a, s = sample_arrays() | dict(model=sample_model()), build(name + options.get(name, ''))
    def moved(far): return {k: a[k].astype(float) + far for k in ('embeds', 'features')}
    picks = [s(Query.from_arrays(**a | moved(far)), 7) for far in (0, 1e4)]
    assert (picks[0] == picks[1]).all() == (name not in SHIFTED)
