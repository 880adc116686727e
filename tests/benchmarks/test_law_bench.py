"""`bench law` counts verdicts of made-up sweeps."""

from __future__ import annotations

from benchmarks.law import TRUTH, run


def test_every_world_is_judged_and_counted() -> None:
    steps: list[int] = []
    rows = list(run(1, 3, 0.05, 20, lambda: steps.append(1)))
    assert [row["world"] for row in rows] == list(TRUTH)
    assert [row["right"] for row in rows] == [1.0] * len(TRUTH)
    assert rows[0]["false_laws"] == 0
    assert (rows[2]["alpha_inside"], rows[2]["E_star_inside"]) != (None, 0)
    assert len(steps) == len(TRUTH)
