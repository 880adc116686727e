"""Fits whose numbers are not finite: they end like any other, and say so in valid JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embodichain.app.cli import main
from embodichain.app.feed import split
from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import Episode, seed_range
from embodichain.replay import fake_episode

ROOT = Path(__file__).parents[2]
TRAIN = seed_range("train").start
TINY = str(ROOT / "configs" / "tiny.yaml")
HELDOUT = 0.2


def spoilt(episode: Episode) -> Episode:
    assert episode.tokens is not None
    return replace(episode, tokens=np.full_like(episode.tokens, np.nan))


def held_out(episode: Episode) -> bool:
    return int(episode.recipe.id, 16) % 10_000 < HELDOUT * 10_000


def make(path: Path, spoil: Callable[[Episode], bool]) -> Path:
    """An archive of which some episodes hold NaN."""
    with ArchiveWriter(Archive.create(str(path)), 0) as writer:
        for seed in range(24):
            episode = fake_episode(TRAIN + seed, 40, 4, 12)
            writer.append(spoilt(episode) if spoil(episode) else episode)
    learn, away = split(Archive.open(str(path)).entries(), HELDOUT, 0)
    assert len(learn) > len(away) > 0
    return path


def fit(archive: Path, output: Path, *words: str) -> int:
    settings = (TINY, f"output={output}", "name=x", f"heldout={HELDOUT}", "replay.min_size_pairs=100", *words)
    return main(["fit", "--archive", str(archive), *settings])


def strict(text: str) -> Any:
    """JSON as its standard has it, without Python's NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_heldout_episode_that_is_not_finite_gives_a_null_and_the_fit_ends(tmp_path, capsys):
    path = make(tmp_path / "a", spoil=held_out)
    assert fit(path, tmp_path, "learner.steps=2") == 0
    assert "error not finite -> not finite rad" in " ".join(capsys.readouterr().out.split())
    error = strict((tmp_path / "x" / "summary.json").read_text())["heldout_error"]
    assert (error["first"], error["last"]) == (None, None)
    assert error["input_blind"] > 0
    assert main(["fit", "--json", "--resume", str(tmp_path / "x")]) == 0
    assert strict(capsys.readouterr().out)["heldout_error"] == error


def test_a_fit_that_diverged_ends_with_what_it_measured_before(tmp_path, capsys):
    path = make(tmp_path / "a", spoil=lambda _: False)
    assert fit(path, tmp_path, "learner.control=eef", "learner.train.lr=10", "learner.steps=20") == 0
    error = strict((tmp_path / "x" / "summary.json").read_text())["heldout_error"]
    assert error["first"] > 0
    assert error["last"] is None
    assert "-> not finite m" in " ".join(capsys.readouterr().out.split())


def test_steps_that_were_skipped_are_counted_and_their_losses_are_null(tmp_path, capsys):
    path = make(tmp_path / "a", spoil=lambda _: True)
    assert fit(path, tmp_path, "learner.steps=11", "heldout=0") == 0
    said = capsys.readouterr()
    assert "11 steps skipped" in said.out
    assert "not finite" in said.out  # in the table of losses
    assert "loss not finite 11 skipped" in " ".join(said.err.split())
    summary = strict((tmp_path / "x" / "summary.json").read_text())
    assert (summary["skipped"], summary["loss"]) == (11, {"first": None, "last": None})
    rows = [strict(line) for line in (tmp_path / "x" / "losses.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"], row["skipped"]) for row in rows] == [(1, None, 1.0), (10, None, 10.0)]
    assert main(["fit", "--json", "--resume", str(tmp_path / "x")]) == 0
    assert strict(capsys.readouterr().out) == summary
