"Runs on executors that are not our own processes: the records are the same, whoever did the work"
import os, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
import pytest
from al_repro.runs.paper import protocols
from al_repro.runs.records import load_records, same_run
from al_repro.runs.runner import run
from al_repro.runs.steps import WrongWorker

CHOSEN = ['random', 'margin', 'coreset']
P = protocols('dal', 'digits', 'smoke')[0]

def records(folder): return {(r['label'], r['seed']): r for r in load_records(folder)[0]}

def alike(a, b):
    a, b = records(a), records(b)
    return a.keys() == b.keys() and len(a) == 9 and all(same_run(a[k], b[k]) for k in a)

@pytest.fixture(scope='module')
def by_processes(tmp_path_factory):
    "What two processes of our own give"
    out = tmp_path_factory.mktemp('processes')
    assert run([P], out, CHOSEN, 3, workers=2, progress=False) == 0
    return out

def test_threads_do_as_processes(by_processes, tmp_path):
    assert run([P], tmp_path, CHOSEN, 3, executor='threads', workers=2, progress=False) == 0
    assert alike(tmp_path, by_processes)

def test_any_executor(by_processes, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        assert run([P], tmp_path, CHOSEN, range(0, 2), executor=pool, progress=False) == 0
        assert run([P], tmp_path, CHOSEN, 3, executor=pool, progress=False) == 0
    assert alike(tmp_path, by_processes)

@pytest.mark.parametrize('bad', ['thread', 'dask://nowhere', 3])
def test_an_executor_that_is_none(bad, tmp_path):
    with pytest.raises(ValueError, match='executor='): run([P], tmp_path, CHOSEN, 1, executor=bad, progress=False)

def test_no_scheduler(tmp_path):
    pytest.importorskip('distributed')
    with pytest.raises(ValueError, match='no Dask scheduler answers at tcp://127.0.0.1:9'):
        run([P], tmp_path, CHOSEN, 1, executor='dask://127.0.0.1:9', progress=False)
    assert not list(tmp_path.rglob('*.json'))

def test_a_worker_with_other_code(tmp_path, monkeypatch):
    "Nothing of it is recorded"
    from al_repro.runs import executors
    real = executors.code_of
    monkeypatch.setattr(executors, 'code_of', lambda job: real(job) | dict(al_repro='0.0.1'))
    with pytest.raises(WrongWorker, match="al_repro '.*' here, '0.0.1' there.*install the same version"):
        run([P], tmp_path, CHOSEN, 1, executor='threads', progress=False)
    assert not list(tmp_path.rglob('*.json'))

@pytest.fixture
def cluster(tmp_path_factory):
    "A scheduler and two worker processes, which share no folder with us but the disk of this test"
    distributed = pytest.importorskip('distributed')
    how = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**how, local_directory=str(tmp_path_factory.mktemp('dask'))) as c: yield c

def address(cluster): return cluster.scheduler_address.replace('tcp://', 'dask://')

def test_a_cluster_does_as_processes(cluster, by_processes, tmp_path):
    assert run([P], tmp_path, CHOSEN, 3, executor=address(cluster), progress=False) == 0
    assert alike(tmp_path, by_processes)

def test_a_worker_is_killed(cluster, by_processes, tmp_path):
    "Its step goes to another one; no round is lost, none is recorded twice"
    from distributed import Client
    with Client(cluster.scheduler_address, set_as_default=False) as client: pids = list(client.run(os.getpid).values())
    killed = []
    def kill():
        end = time.time() + 60
        while time.time() < end and not list(tmp_path.rglob('*.json')): time.sleep(.02)
        os.kill(pids[0], signal.SIGKILL); killed.append(pids[0])
    t = threading.Thread(target=kill); t.start()
    assert run([P], tmp_path, CHOSEN, 3, executor=address(cluster), progress=False) == 0
    t.join()
    assert killed and alike(tmp_path, by_processes)
