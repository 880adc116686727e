"""`bench NAME --json` prints JSON and nothing else, whatever libraries print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import fresh_rate
from embodichain.app.cli import main


def test_what_libraries_print_is_not_among_the_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def noisy(*_: object) -> Iterator[dict[str, object]]:
        print("(raylet) a worker died")
        yield {"target": 1.0}

    monkeypatch.setattr(fresh_rate, "run", noisy)
    monkeypatch.setattr("benchmarks.result.RESULTS", tmp_path)
    assert main(["bench", "fresh-rate", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == [{"target": 1.0}]
    assert "a worker died" in printed.err
