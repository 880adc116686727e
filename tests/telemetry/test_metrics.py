"""The metric catalogue and the buffer."""

from __future__ import annotations

import math
import re

import pytest
from mlflow.utils.validation import _validate_metric_name

from embodichain.telemetry.metrics import (
    METRIC_UNITS,
    MetricBuffer,
    MetricPoint,
    error_metrics,
    finite,
    success_metrics,
    unit_of,
)


def test_every_name_has_a_unit_and_is_one_that_mlflow_takes() -> None:
    for name, unit in METRIC_UNITS.items():
        assert re.fullmatch(r"[a-z_]+(/[a-z_]+)?", name)
        assert unit
        assert unit_of(name) == unit


def test_success_row_becomes_metrics() -> None:
    row = {"task": "lift", "split": "heldout_seeds", "domain": "clean", "n": 30, "rate": 0.5, "low": 0.3, "high": 0.7}
    metrics = success_metrics({**row, "first_rate": 0.1})
    assert metrics["success/lift/heldout_seeds/clean/rate"] == 0.5
    assert set(metrics) == {f"success/lift/heldout_seeds/clean/{name}" for name in ("rate", "low", "high", "n")}
    assert unit_of("success/lift/heldout_seeds/clean/n") == "seeds"


def test_mlflow_takes_the_name_of_any_domain() -> None:
    domain = "spatial+visual@scenes"
    row = {"task": "lift", "split": "heldout_scenes", "domain": domain, "n": 30, "rate": 0.5}
    names = [*success_metrics(row), *error_metrics({"spatial": 1.0, domain: 2.0})]
    assert "heldout/action_error/spatial.visual:scenes" in names
    for name in names:
        _validate_metric_name(name)
        assert unit_of(name)
    assert error_metrics({domain: 2.0}) == {}


def test_first_in_first_out_and_back_again() -> None:
    buffer = MetricBuffer()
    for step in range(5):
        buffer.add({"a": step}, step=step, t=10.0 + step)
    taken = buffer.take(3)
    assert [p.step for p in taken] == [0, 1, 2]
    buffer.put_back(taken)
    assert [p.step for p in buffer.take(99)] == [0, 1, 2, 3, 4]
    assert len(buffer) == 0


def test_full_buffer_drops_the_oldest_and_counts() -> None:
    buffer = MetricBuffer(capacity=3)
    buffer.add({"a": 1.0, "b": 2.0}, step=0, t=0.0)
    buffer.add({"a": 3.0, "b": 4.0}, step=1, t=1.0)
    assert buffer.dropped == 1
    assert [p.value for p in buffer.take(9)] == [2.0, 3.0, 4.0]


def test_a_bad_value_leaves_nothing_behind() -> None:
    buffer = MetricBuffer()
    with pytest.raises(ValueError, match="metric b='high'"):
        buffer.add({"a": 1.0, "b": "high"}, step=0, t=0.0)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="step=-1"):
        buffer.add({"a": 1.0}, step=-1, t=0.0)
    assert len(buffer) == 0


def test_finite_drops_nan_and_sorts() -> None:
    points = [MetricPoint(name="a", value=v, step=s, t=0.0) for v, s in ((1.0, 5), (math.nan, 2), (2.0, 1))]
    assert [p.step for p in finite(points)] == [1, 5]
