"""The table of a benchmark."""

from __future__ import annotations

import pytest

from benchmarks.result import print_rows

ROWS: list[dict[str, object]] = [
    {"contender": "same node", "workload": "image", **{f"figure_{i}": 1000.25 + i for i in range(12)}},
    {"contender": "memcpy", "workload": "pose", **{f"figure_{i}": 2000.25 + i for i in range(11)}},
]


@pytest.mark.parametrize("width", [80, 120, None])
def test_no_figure_is_cut(width: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("bench x", ROWS, width)
    lines = capsys.readouterr().out.splitlines()
    assert "…" not in "".join(lines)
    if width is not None:
        assert max(map(len, lines)) <= width
    text = " ".join(lines)
    assert all(f"figure_{i}" in text and f"{1000 + i}" in text for i in range(12))


def test_each_part_begins_with_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("bench x", ROWS, 80)
    named = [line for line in capsys.readouterr().out.splitlines() if "memcpy" in line]
    assert len(named) > 1
    assert all("pose" in line for line in named)


def test_words_alone_and_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("bench x", [{"a": "b"}], 80)
    print_rows("bench y", [], 80)
    assert "b" in capsys.readouterr().out
