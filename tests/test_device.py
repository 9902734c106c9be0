"""The checks on a second device, each file in a process of its own: torch counts its devices once, at the first backward pass,
and nothing of the false one is to be seen by other tests."""
import os, subprocess, sys
from pathlib import Path
import pytest

HERE = Path(__file__).resolve().parent

@pytest.mark.parametrize('file', ['device_checks.py', 'device_runs.py'])
def test_on_a_second_device(file):
    command = [sys.executable, '-m', 'pytest', '-q', '-rs', '-p', 'no:cacheprovider', str(HERE/file)]
    res = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS='1'))
    print(res.stdout[-3000:]) # what was skipped, and why
    assert res.returncode == 0, res.stdout[-5000:]
