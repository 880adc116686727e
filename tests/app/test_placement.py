"""Where processes go: the plan, what it says of what is missing, and Ray's own placing by labels."""

from __future__ import annotations

import pytest

from embodichain.app import placement
from embodichain.app.cli import main
from embodichain.app.config import ConfigError, RunConfig, load_config
from embodichain.app.placement import Node

CLUSTER = [
    "placement.simulators={role: sim}",
    "placement.learner={role: learn}",
    "placement.evaluators={role: sim}",
    "actors.count=6",
    "actors.cpus=1",
]


def config(*overrides: str) -> RunConfig:
    return load_config("configs/tiny.yaml", overrides)


def two_nodes(sim_cpus: float = 8.0) -> list[Node]:
    return [
        Node(name="a", cpus=sim_cpus, labels={"role": "sim"}),
        Node(name="b", cpus=2.0, gpus=1.0, labels={"role": "learn"}),
    ]


def test_every_process_goes_where_its_label_is_and_shards_go_beside_the_learner():
    nodes = two_nodes()
    assert placement.plan(placement.demands(config(*CLUSTER)), nodes) == []
    assert nodes[0].holds == {"simulators": 6, "evaluators": 1}
    assert nodes[1].holds == {"learner workers": 1, "replay shards": config().replay.shards}


def test_what_is_missing_is_named_with_its_need_and_what_is_left():
    (missing,) = placement.plan(placement.demands(config(*CLUSTER)), two_nodes(sim_cpus=4.5))
    assert missing.startswith("actors: 2 of 6 simulators have no place, each needs 1 CPU on a node with role=sim")
    assert "a has 0.5 CPU, 0 GPU left" in missing
    assert "b has" not in missing


def test_a_label_that_no_node_carries_and_a_gpu_that_is_not_there_are_named():
    wanted = config(*CLUSTER, "placement.evaluators={zone: north}", "learner.gpu=true", "learner.workers=2")
    missing = placement.plan(placement.demands(wanted), two_nodes())
    assert any("evaluators have no place" in line and "no node carries that label" in line for line in missing)
    assert any("1 of 2 learner workers" in line and "1 GPU" in line for line in missing)


def test_a_run_that_this_machine_cannot_hold_is_refused_before_anything_is_created(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests' Ray is not this run's
    with pytest.raises(ConfigError, match=r"have no place, each needs .* CPU \(this machine has"):
        placement.check(config("ray.cpus=0.5"))
    assert main(["run", "configs/tiny.yaml", "ray.cpus=0.5", f"output={tmp_path}"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_plan_and_starts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert main(["run", "configs/tiny.yaml", "--dry-run", "ray.cpus=4", f"output={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("simulators", "learner workers", "replay shards", "nothing was started"))
    assert list(tmp_path.iterdir()) == []
    assert main(["run", "configs/tiny.yaml", "--dry-run", "ray.cpus=4", "placement.simulators={role: sim}"]) == 2
    assert "role=sim" in capsys.readouterr().err


ENCODERS = ["encoder.name=dinov3", "encoder.weights=random:tiny", "window.phase_step=8", "encoder.actors=2"]


def test_encoders_go_where_their_label_and_their_gpu_are():
    wanted = config(*CLUSTER, *ENCODERS, "encoder.gpu=true", "placement.encoders={role: encode}")
    nodes = [*two_nodes(), Node(name="c", cpus=4.0, gpus=2.0, labels={"role": "encode"})]
    assert placement.plan(placement.demands(wanted), nodes) == []
    assert nodes[2].holds == {"encoders": 2}
    assert (nodes[2].cpus, nodes[2].gpus) == (2.0, 0.0)
    nodes = [*two_nodes(), Node(name="c", cpus=4.0, gpus=1.0, labels={"role": "encode"})]
    (missing,) = placement.plan(placement.demands(wanted), nodes)
    assert missing.startswith("encoder: 1 of 2 encoders have no place, each needs 1 CPU and 1 GPU on a node with role=")


def test_a_dry_run_shows_encoders_and_refuses_those_without_a_place(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(placement, "_own_gpus", lambda: 1.0)
    words = ["run", "configs/tiny.yaml", "--dry-run", "ray.cpus=8", f"output={tmp_path}", *ENCODERS]
    assert main(words) == 0
    assert "encoders" in capsys.readouterr().out
    assert main([*words, "encoder.gpu=true"]) == 2
    assert "encoder: 1 of 2 encoders have no place, each needs 1 CPU and 1 GPU" in capsys.readouterr().err
    assert main([*words, "placement.encoders={role: encode}"]) == 2
    assert "role=encode (no node carries that label)" in capsys.readouterr().err


def test_shared_encoders_are_for_images_only():
    with pytest.raises(ConfigError, match=r"encoder\.actors=1 with encoder\.name=state"):
        config("encoder.actors=1")
