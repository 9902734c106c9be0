"Readers of data sets, on tiny files in the formats their publishers use."
import os, pickle, struct, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
from PIL import Image, ImageFile
from al_repro.data import images
from al_repro.data.catalog import load
from al_repro.data.dataset import data_root
from al_repro.data.folders import pixels as read_pixels
from al_repro.data.images import PLACES, download


def pixels(*shape, seed=0): return np.random.RandomState(seed).randint(0, 256, shape, dtype=np.uint8)

def save(path, array, **kwargs):
    "An image file, its folders made on the way"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **kwargs)
    return path

def classes_of(folder, n=10, shape=(8, 8, 3), names=('ant', 'bee')):
    "n images for each class"
    for j, k in enumerate(names):
        for i in range(n): save(folder/k/f'{i:03}.png', pixels(*shape, seed=100*j + i))
    return folder


# ---- the published formats

def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack('>HBB', 0, 8, array.ndim) + struct.pack(f'>{array.ndim}I', *array.shape)
    path.write_bytes(head + array.tobytes())

IDX = [('mnist', 'MNIST', '0'), ('fashion-mnist', 'FashionMNIST', 'T-shirt/top')]

@pytest.mark.parametrize('name, folder, first', IDX)
def test_idx(tmp_path, name, folder, first):
    x, y = pixels(7, 28, 28), np.array([3, 0, 9, 1, 1, 5, 2], dtype=np.uint8)
    for part, k in (('train', 4), ('t10k', -3)):
        a, b = (x[:k], y[:k]) if k > 0 else (x[k:], y[k:])
        write_idx(tmp_path/folder/'raw'/f'{part}-images-idx3-ubyte', a)
        write_idx(tmp_path/folder/'raw'/f'{part}-labels-idx1-ubyte', b)
    d = load(name, root=tmp_path)
    assert (d.name, d.n, d.shape, d.n_classes, d.classes[0]) == (name, 4, (1, 28, 28), 10, first)
    assert (d.x[:, 0].numpy() == x[:4]).all() and (d.x_test[:, 0].numpy() == x[4:]).all()
    assert d.y.tolist() + d.y_test.tolist() == y.tolist()
    assert load(name, root=tmp_path, size=32).shape == (1, 32, 32)
    path = tmp_path/folder/'raw'/'train-images-idx3-ubyte' # half of it is lost
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=f'{name} at .* incomplete or damaged'): load(name, root=tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match='incomplete or damaged'): load(name, root=tmp_path)

def present(path, md5=None): return os.path.isfile(path)

def write_cifar(root, name):
    "Pickles of dicts with rows of 3072 bytes: 1024 red, 1024 green, 1024 blue"
    fine, coarse = ('fine_labels', 'coarse_labels') if name == 'cifar100' else ('labels', 'coarse')
    folder = root/('cifar-100-python' if name == 'cifar100' else 'cifar-10-batches-py')
    folder.mkdir(parents=True)
    parts = ['train', 'test'] if name == 'cifar100' else [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']
    x = pixels(len(parts), 2, 3072)
    for i, p in enumerate(parts):
        (folder/p).write_bytes(pickle.dumps({'data': x[i], fine: [i, i + 1], coarse: [0, 0]}))
    n = 100 if name == 'cifar100' else 10
    key = 'fine_label_names' if name == 'cifar100' else 'label_names'
    about = folder/('meta' if name == 'cifar100' else 'batches.meta')
    about.write_bytes(pickle.dumps({key: [f'c{i}' for i in range(n)]}))
    return x.reshape(-1, 3, 32, 32)

@pytest.mark.parametrize('name, n', [('cifar10', 10), ('cifar100', 100)])
def test_cifar(tmp_path, monkeypatch, name, n):
    x = write_cifar(tmp_path, name)
    # not the published checksums: not unpickled
    with pytest.raises(ValueError, match='incomplete or damaged'): load(name, root=tmp_path)
    monkeypatch.setattr('torchvision.datasets.cifar.check_integrity', present)
    d = load(name, root=tmp_path)
    assert (d.name, d.n, d.shape, d.n_classes, d.classes[3]) == (name, len(x) - 2, (3, 32, 32), n, 'c3')
    assert (d.x.numpy() == x[:-2]).all() and (d.x_test.numpy() == x[-2:]).all()
    assert d.y[:4].tolist() == ([0, 1, 1, 2] if name == 'cifar10' else [0, 1]) and d.x.is_contiguous()

def test_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat
    x = pixels(32, 32, 3, 6)
    y = np.array([[10], [1], [9], [10], [2], [3]], dtype=np.uint8) # the files say 10 for digit 0
    (tmp_path/'svhn').mkdir()
    savemat(tmp_path/'svhn'/'train_32x32.mat', {'X': x[..., :4], 'y': y[:4]})
    savemat(tmp_path/'svhn'/'test_32x32.mat', {'X': x[..., 4:], 'y': y[4:]})
    with pytest.raises(ValueError, match='incomplete or damaged'): load('svhn', root=tmp_path)
    monkeypatch.setattr('torchvision.datasets.svhn.check_integrity', present)
    d = load('svhn', root=tmp_path)
    assert (d.y.tolist(), d.y_test.tolist(), d.classes[0]) == ([0, 1, 9, 0], [2, 3], '0')
    assert d.x[1, 2, 3, 4] == x[3, 4, 2, 1] and d.x_test.shape == (2, 3, 32, 32)

def test_caltech101(tmp_path):
    place = tmp_path/'caltech101'/'101_ObjectCategories'
    for j, (k, n) in enumerate({'BACKGROUND_Google': 3, 'Faces': 10, 'accordion': 5}.items()):
        for i in range(n): save(place/k/f'image_{i + 1:04}.jpg', pixels(20 + i, 30, 3, seed=j))
    d = load('caltech101', root=tmp_path)
    assert (d.classes, d.shape) == (('Faces', 'accordion'), (3, 32, 32))
    assert d.y.bincount().tolist() == [8, 4] and d.y_test.bincount().tolist() == [2, 1]
    assert load('caltech101', root=tmp_path, size=16).shape == (3, 16, 16)

def test_tiny_imagenet(tmp_path):
    place, ids = tmp_path/'tiny-imagenet-200', ['n01', 'n02', 'n03']
    for k in reversed(ids):
        for i in (0, 1, 10, 2): save(place/'train'/k/'images'/f'{k}_{i}.JPEG', pixels(64, 64, 3, seed=i))
        (place/'train'/k/f'{k}_boxes.txt').write_text('')
    save(place/'train/n01/images/n01_0.JPEG', pixels(64, 64)) # some of the real ones are grey, too
    for i in range(3): save(place/'val/images'/f'val_{i}.JPEG', pixels(64, 64, 3, seed=i))
    rows = 'val_2.JPEG\tn03', 'val_0.JPEG\tn02', 'val_1.JPEG\tn01'
    (place/'val/val_annotations.txt').write_text(''.join(f'{r}\t0\t0\t9\t9\n' for r in rows))
    words = 'n00\tentity', 'n01\tcrane', 'n02\tgoldfish, Carassius auratus', 'n03\tcrane, hoist'
    (place/'words.txt').write_text(''.join(f'{w}\n' for w in words))
    d = load('tiny-imagenet', root=tmp_path)
    assert d.classes == ('crane (n01)', 'goldfish', 'crane (n03)') and d.shape == (3, 64, 64)
    assert d.y.tolist() == [0]*4 + [1]*4 + [2]*4 and d.y_test.tolist() == [1, 0, 2]
    assert (d.x[0, 0] == d.x[0, 1]).all() and not (d.x[1, 0] == d.x[1, 1]).all()
    third = np.array(Image.open(place/'train/n02/images/n02_10.JPEG')) # 0 1 10 2
    assert (d.x[6].permute(1, 2, 0).numpy() == third).all()
    (place/'val/val_annotations.txt').unlink()
    with pytest.raises(ValueError, match='tiny-imagenet at .* incomplete'): load('tiny-imagenet', root=tmp_path)


# ---- folders

def test_split_layouts(tmp_path):
    classes_of(tmp_path/'a'/'train', 3); classes_of(tmp_path/'a'/'valid', 2)
    assert [len(load(f'folder:{tmp_path}/a').y_test), load(f'folder:{tmp_path}/a').n] == [4, 6]
    classes_of(tmp_path/'a'/'val', 1)
    assert len(load(f'folder:{tmp_path}/a').y_test) == 2
    classes_of(tmp_path/'a'/'test', 4, names=('bee',)) # a class without test images is allowed
    assert load(f'folder:{tmp_path}/a').y_test.tolist() == [1]*4
    classes_of(tmp_path/'vehicles', 5, names=('bus', 'train')) # "train" as a class
    assert load(f'folder:{tmp_path}/vehicles').classes == ('bus', 'train')

def test_name_size_and_order(tmp_path):
    d = load(f"folder:{classes_of(tmp_path/'ants-and-bees', names=('bee', 'ant', 'Z'))}/")
    assert (d.name, d.classes, d.shape) == ('ants-and-bees', ('Z', 'ant', 'bee'), (3, 8, 8)) # one square size stays
    assert load(f'folder:{tmp_path}/ants-and-bees', size=12).fingerprint == d.resized(12).fingerprint
    save(tmp_path/'ants-and-bees'/'ant'/'wide.png', pixels(8, 9, 3))
    assert load(f'folder:{tmp_path}/ants-and-bees').shape == (3, 32, 32)
    assert load(f"folder:{classes_of(tmp_path/'cifar10')}").name == 'cifar10-folder' # never passes for the original
    with pytest.raises(FileNotFoundError, match='no folder .*nowhere'): load(f'folder:{tmp_path}/nowhere')

def test_other_files_are_left_out(tmp_path):
    before = load(f"folder:{classes_of(tmp_path/'f')}").fingerprint
    for p in ('ant/.DS_Store', 'ant/._000.png', 'ant/Thumbs.db', 'notes.txt', 'ant/labels.csv'):
        (tmp_path/'f'/p).write_text('?')
    (tmp_path/'f'/'.cache').mkdir()
    assert load(f'folder:{tmp_path}/f').fingerprint == before
    (tmp_path/'f/ant/000.png').rename(tmp_path/'f/ant/000.PNG')
    assert load(f'folder:{tmp_path}/f').fingerprint == before

def test_sub_folders_are_refused(tmp_path):
    classes_of(tmp_path/'f')
    (tmp_path/'f/ant/notes').mkdir(); (tmp_path/'f/ant/notes/a.txt').write_text('no image')
    before = load(f'folder:{tmp_path}/f').fingerprint # a folder without images is no harm
    for name in ('sub/a.png', 'sub/deep/b.png', 'sub/.hidden/c.png', 'sub/._d.png'):
        save(tmp_path/'f/ant'/name, pixels(8, 8, 3))
    (tmp_path/'f/ant/sub/deep/b.png').rename(tmp_path/'f/ant/sub/deep/b.JPG')
    said = r'class folder .*ant holds 2 image files in sub-folders.*move them up .*remove'
    with pytest.raises(ValueError, match=said): load(f'folder:{tmp_path}/f')
    (tmp_path/'f/ant/sub').rename(tmp_path/'sub')
    assert load(f'folder:{tmp_path}/f').fingerprint == before

def test_grey_or_colour(tmp_path):
    assert load(f"folder:{classes_of(tmp_path/'f', shape=(8, 8))}").shape == (1, 8, 8)
    save(tmp_path/'f/ant/rgb.png', pixels(8, 8, 3))
    d = load(f'folder:{tmp_path}/f')
    assert d.shape == (3, 8, 8) and (d.x[-1, 0] == d.x[-1, 1]).all()
    Image.fromarray(np.full((8, 8), 700, np.uint16)).save(tmp_path/'f/ant/deep.png')
    with pytest.raises(ValueError, match=r'deep\.png \(pixels of type I'): load(f'folder:{tmp_path}/f')

def test_turned_and_transparent(tmp_path):
    a = pixels(8, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6 # the camera was turned: rotate by 90 degrees to see it upright
    path = save(tmp_path/'t.png', a, exif=exif)
    assert (read_pixels(path, 'RGB')[0].permute(1, 2, 0).numpy() == np.rot90(a, -1)).all()
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    x = read_pixels(save(tmp_path/'c.png', clear), 'RGB')[0]
    assert x[:, 0, 0].tolist() == [10, 20, 30] and x[:, 1, 1].tolist() == [255]*3
    grey = save(tmp_path/'la.png', np.dstack([clear[..., 0], clear[..., 3]]))
    assert read_pixels(grey, 'L')[0, 0, :2, :2].tolist() == [[10, 255], [255, 255]]

@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'gif'])
def test_truncated(tmp_path, monkeypatch, suffix):
    classes_of(tmp_path, shape=(64, 64, 3))
    path = save(tmp_path/'ant'/f'half.{suffix}', pixels(64, 64, 3))
    path.write_bytes(path.read_bytes()[:path.stat().st_size//2])
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True) # set by some other library
    said = rf'cannot read .*half\.{suffix} .*replace the file or remove it'
    with pytest.raises(ValueError, match=said): load(f'folder:{tmp_path}')
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True

def test_no_test_image(tmp_path):
    with pytest.raises(ValueError, match='no class has a second image'): load(f'folder:{classes_of(tmp_path, 1)}')


# ---- roots and downloads

def test_root(tmp_path, monkeypatch):
    monkeypatch.delenv('AL_REPRO_DATA', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    assert data_root() == tmp_path/'cache'/'al_repro'
    monkeypatch.delenv('XDG_CACHE_HOME')
    assert data_root() == Path.home()/'.cache'/'al_repro'
    monkeypatch.setenv('AL_REPRO_DATA', str(tmp_path/'env'))
    assert data_root() == tmp_path/'env' and data_root(tmp_path) == tmp_path
    for name in PLACES:
        said = f"no {name} at {tmp_path}/env.*\n.*download\\('{name}'\\)"
        with pytest.raises(FileNotFoundError, match=said): load(name)
    assert not (tmp_path/'env').exists() # looking leaves nothing behind

def test_download_arrives_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    def broken(name, folder):
        write_cifar(folder, name)
        raise OSError('connection lost')
    monkeypatch.setattr(images, 'fetch', broken)
    with pytest.raises(OSError, match='connection lost'): download('cifar10', root=tmp_path/'r')
    assert list((tmp_path/'r').iterdir()) == []
    monkeypatch.setattr(images, 'fetch', lambda name, folder: write_cifar(folder, name))
    place = download('cifar10', root=tmp_path/'r')
    assert place == tmp_path/'r'/'cifar-10-batches-py' and (place/'test_batch').is_file()
    assert [p.name for p in (tmp_path/'r').iterdir()] == ['cifar-10-batches-py']
    monkeypatch.setattr(images, 'fetch', broken)
    assert download('cifar10', root=tmp_path/'r') == place and 'already there' in capsys.readouterr().out

@pytest.mark.parametrize('name, kind', [('mnist', 'MNIST'), ('fashion-mnist', 'FashionMNIST'), ('cifar10', 'CIFAR10'),
                                        ('cifar100', 'CIFAR100'), ('svhn', 'SVHN'), ('caltech101', 'Caltech101')])
def test_fetch_asks_torchvision(tmp_path, monkeypatch, name, kind):
    calls = []
    monkeypatch.setattr(f'torchvision.datasets.{kind}', lambda root, **kwargs: calls.append((Path(root), kwargs)))
    images.fetch(name, tmp_path)
    assert calls == ([(tmp_path/'svhn', dict(split=s, download=True)) for s in ('train', 'test')] if name == 'svhn'
                     else [(tmp_path, dict(download=True))])

def test_fetch_tiny_imagenet(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr('torchvision.datasets.utils.download_and_extract_archive', lambda *a, **k: calls.append((a, k)))
    images.fetch('tiny-imagenet', tmp_path)
    assert calls[0][0][1] == str(tmp_path) and len(calls[0][1]['md5']) == 32

def test_import_stays_light():
    code = 'import al_repro.data.catalog, sys; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    heavy = {'torchvision', 'sklearn', 'PIL', 'matplotlib', 'scipy', 'pandas'}
    assert heavy & {*done.stdout.split()} == set()

def test_real_mnist():
    "Ids of records about MNIST keep their meaning"
    try: d = load('mnist')
    except FileNotFoundError: pytest.skip('needs MNIST in AL_REPRO_DATA')
    assert d.fingerprint == '0095bc526a0dc63900c300a82f30cd7d'
    assert (d.n, len(d.y_test)) == (60000, 10000)
