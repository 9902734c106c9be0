"""The checks on a second device, each file in a process of its own

torch counts its devices once, at the first backward pass,
and nothing of the false one is to be seen by other tests."""
import os, subprocess, sys
from pathlib import Path
import pytest

HERE = Path(__file__).resolve().parent
FILES = 'device_checks.py', 'device_runs.py'

@pytest.fixture(scope='module')
def running(tmp_path_factory):
    "All files at once, on one thread each"
    folder, env = tmp_path_factory.mktemp('device'), os.environ | dict(OMP_NUM_THREADS='1')
    def start(file):
        command = [sys.executable, '-m', 'pytest', '-q', '-rs', '-p', 'no:cacheprovider', str(HERE/file)]
        out = open(folder/file, 'w')
        return subprocess.Popen(command, cwd=HERE.parent, stdout=out, stderr=subprocess.STDOUT, env=env), folder/file
    started = {file: start(file) for file in FILES}
    yield started
    for process, _ in started.values(): process.kill()

@pytest.mark.parametrize('file', FILES)
def test_on_a_second_device(file, running):
    process, out = running[file]
    code = process.wait()
    print(out.read_text()[-3000:]) # what was skipped, and why
    assert code == 0, out.read_text()[-5000:]
