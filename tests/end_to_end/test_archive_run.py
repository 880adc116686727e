"""Archive beside a run, then run from the archive: the same episodes, without their physics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embodichain.archive import Archive

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny.yaml")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "embodichain", "run", TINY, *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, timeout=400, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_keeps_its_episodes_and_another_learns_from_them_until_they_are_used_up(tmp_path):
    small = ("replay.min_size_pairs=200", "evaluation.seeds_between=0", "evaluation.seeds=1", f"output={tmp_path}")
    stored = tmp_path / "shared"
    first = run(*small, f"archive.path={tmp_path / 'a'}", f"storage={stored}", "name=first")
    assert first.returncode == 0, first.stdout + first.stderr
    summary = json.loads((tmp_path / "first" / "summary.json").read_text())
    archive = Archive.open(str(tmp_path / "a"))
    entries = archive.entries()
    assert archive.verify() == []
    # One may have been on its way to its shard when the simulators were stopped, and so be archived but not counted.
    assert 0 < summary["episodes"]["accepted"] <= summary["archive"]["episodes"] <= len(entries)
    assert summary["faults"] == {}
    assert (stored / "first" / "checkpoints" / "step_40" / "checkpoint.json").exists()
    assert list((stored / "first" / "replay").glob("*.npz"))
    assert not (tmp_path / "first" / "checkpoints").exists()
    again = run(
        *small, f"episodes=archive:{tmp_path / 'a'}", "name=second", "replay.max_reuse=2", "learner.steps=100000",
        "replay.samples_per_insert=1", "learner.workers=2", "learner.cpus=0.25",
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    second = json.loads((tmp_path / "second" / "summary.json").read_text())
    assert (second["status"], second["episodes"]["accepted"]) == ("done", len(entries))
    assert second["episodes"]["rejected"] == {}
    assert second["reuse"]["max"] == 2
    assert second["reuse"]["mean"] > 1.5  # the pace holds nothing back once no more can come
    assert second["frames"] == sum(entry.pairs for entry in entries)
    assert 0 < second["learner_steps"] < 100_000
    # A run that is for its archive ends with it, and goes on with one that is there.
    wanted = second["frames"] + 300
    more = (f"archive.path={tmp_path / 'a'}", f"archive.pairs={wanted}", "name=more", "learner.steps=100000")
    third = run(*small, *more)
    assert third.returncode == 0, third.stdout + third.stderr
    assert wanted <= sum(entry.pairs for entry in archive.entries()) < wanted + 5000
    refused = run(*small, f"episodes=archive:{tmp_path / 'a'}", "tasks.handover=1", "name=third")
    assert refused.returncode == 2
    assert "tasks.handover" in refused.stderr
    assert not (tmp_path / "third").exists()
