"""What a killed saver leaves behind, and who clears it away."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from learner import TrainConfig, TrainState, list_checkpoints, save_checkpoint
from learner.checkpoint import ABANDONED_S
from learner.testing import small_model

KILLED_WHILE_SAVING = """
import os, signal, sys
from learner import TrainConfig, TrainState, checkpoint
from learner.testing import small_model

real = checkpoint.save_file
def save_file(tensors, path):
    real(tensors, path)
    if path.name == "model.safetensors":
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.save_file = save_file
checkpoint.save_checkpoint(checkpoint.Path(sys.argv[1]), TrainState(small_model(), TrainConfig()))
"""


@pytest.fixture(scope="module")
def state():
    return TrainState(small_model(), TrainConfig())


def leave(folder, name, age_s=0.0):
    """What somebody has written a part of, `age_s` ago."""
    left = folder / name
    left.mkdir()
    (left / "ema.safetensors").write_bytes(b"half")
    for path in (left / "ema.safetensors", left):
        os.utime(path, (time.time() - age_s,) * 2)


def left_in(folder):
    return sorted(path.name for path in folder.glob(".*"))


def test_what_a_saver_left_that_was_killed_is_removed_by_the_next_one(tmp_path, state):
    dead = subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path / "step_3")], timeout=120)
    assert dead.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".step_3.partial-{socket.gethostname()}-")
    assert list_checkpoints(tmp_path) == []
    shutil.copytree(left, tmp_path / left.name.replace("partial", "old"))  # killed between the two renames
    save_checkpoint(tmp_path / "step_10", state)
    assert [path.name for path in tmp_path.iterdir()] == ["step_10"]


def test_only_what_is_certainly_abandoned_is_removed(tmp_path, state):
    host, gone = socket.gethostname(), subprocess.Popen(["true"])
    gone.wait()
    kept = [
        f".step_1.partial-{host}-{os.getppid()}",  # it lives
        f".step_2.partial-not-{host}-{gone.pid}",  # another host: its processes cannot be seen from here
        f".step_3.partial-{gone.pid}",  # of an older version: perhaps of another host
        f".notes.partial-{host}-{gone.pid}",  # not ours
    ]
    for name in kept:
        leave(tmp_path, name, ABANDONED_S / 2)
    leave(tmp_path, f".step_4.partial-{host}-{gone.pid}")
    leave(tmp_path, f".step_5.partial-{host}-{os.getpid()}")  # a number that was given again: nobody saves two at once
    leave(tmp_path, f".step_6.partial-not-{host}-{gone.pid}", 2 * ABANDONED_S)
    leave(tmp_path, f".step_7.partial-{gone.pid}", 2 * ABANDONED_S)
    save_checkpoint(tmp_path / "step_10", state)
    assert left_in(tmp_path) == sorted(kept)
    assert list_checkpoints(tmp_path) == [10]
