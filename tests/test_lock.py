"One writer a folder: whoever comes second, whoever was killed, systems and disks without locks"
import json, os, platform, signal, subprocess, sys, time
import pytest
from al_repro.runs import lock
from al_repro.runs.lock import LOCK, InUse, OneWriter, owner_of

HOLD = """
import sys, time
from al_repro.runs.lock import OneWriter
with OneWriter(sys.argv[1]) as mine:
    mine.take()
    print('taken', flush=True)
    time.sleep(600)
"""
posix = pytest.mark.skipif(os.name != 'posix', reason='kill -9')

@pytest.fixture
def other(tmp_path):
    "Another process that holds the lock of `tmp_path`"
    with subprocess.Popen([sys.executable, '-c', HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout.readline() == 'taken\n'
        yield p
        p.kill()

@pytest.fixture
def no_system_lock(monkeypatch):
    "As on Windows, or on a disk that knows no locks"
    monkeypatch.setitem(sys.modules, 'fcntl', None)

def take(folder):
    with OneWriter(folder) as mine:
        mine.take()
        return owner_of(mine.path)['pid']

def leave(folder, **owner):
    "A lock file without its owner"
    found = dict(pid=os.getpid(), host=platform.node(), since='2026-11-29 08:00 UTC') | owner
    (folder/LOCK).write_text(json.dumps(found))

def ended():
    "The number of a process that has ended"
    p = subprocess.Popen([sys.executable, '-c', ''])
    p.wait()
    return p.pid


def test_the_second_is_told_who_came_first(other, tmp_path):
    with pytest.raises(InUse) as e: take(tmp_path)
    for said in (str(tmp_path), f'process {other.pid} on {platform.node()}', 'choose another --out'):
        assert said in str(e.value)
    assert 'delete' not in str(e.value) # the system gives it back

@posix
def test_nobody_cleans_up_after_kill_9(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path/LOCK).exists() and take(tmp_path) == os.getpid() and not (tmp_path/LOCK).exists()

def test_a_lock_that_is_deleted_by_hand_is_not_taken_twice(tmp_path):
    with OneWriter(tmp_path) as first:
        first.take()
        (tmp_path/LOCK).unlink()
        with OneWriter(tmp_path) as second:
            second.take()
            first.__exit__() # which leaves the lock of the second alone
            with pytest.raises(InUse): take(tmp_path)
    assert not (tmp_path/LOCK).exists()

def test_an_error_gives_it_back(tmp_path):
    with pytest.raises(KeyboardInterrupt), OneWriter(tmp_path) as mine:
        mine.take()
        raise KeyboardInterrupt
    assert take(tmp_path) == os.getpid()

def test_a_file_that_says_nothing(tmp_path):
    for text in ('', 'x', '[]', '{"pid": 1}'):
        (tmp_path/LOCK).write_text(text)
        assert take(tmp_path) == os.getpid()


# ---------------------------------------------------------------- without locks of the system

def test_without_fcntl(tmp_path, no_system_lock):
    with OneWriter(tmp_path) as mine:
        mine.take()
        with pytest.raises(InUse, match=f'process {os.getpid()} on .*if that process is gone, delete .*{LOCK}'):
            take(tmp_path)
    assert not (tmp_path/LOCK).exists() and take(tmp_path) == os.getpid()

def test_a_disk_without_locks(tmp_path, monkeypatch):
    fcntl = pytest.importorskip('fcntl')
    def unknown(*_): raise OSError(95, 'Operation not supported')
    monkeypatch.setattr(fcntl, 'flock', unknown)
    leave(tmp_path, pid=ended())
    assert take(tmp_path) == os.getpid()

@posix
def test_whose_owner_has_ended(tmp_path, no_system_lock):
    leave(tmp_path, pid=ended())
    assert take(tmp_path) == os.getpid()

def test_whose_owner_runs_elsewhere(tmp_path, no_system_lock):
    leave(tmp_path, host='far away', pid=7)
    with pytest.raises(InUse, match='process 7 on far away, begun 2026-11-29 08:00 UTC'): take(tmp_path)
    assert (tmp_path/LOCK).exists()

@posix
def test_whose_owner_is_not_named(tmp_path, no_system_lock):
    "It may be about to write its name; after a minute it is not"
    (tmp_path/LOCK).write_text('')
    with pytest.raises(InUse, match='by another process'): take(tmp_path)
    old = time.time() - lock.UNSIGNED - 1
    os.utime(tmp_path/LOCK, (old, old))
    assert take(tmp_path) == os.getpid()
