"""Cells on a Ray cluster: whole or not at all, and one line where there is none."""

from pathlib import Path

import pytest

from embodichain.app.settings import ConfigError
from embodichain.app.sweep import cluster
from embodichain.app.sweep.config import SweepConfig
from embodichain.app.sweep.process import Job


def sweep(**settings) -> SweepConfig:
    return SweepConfig(name="s", base="base.yaml", **settings)


def job(**settings) -> Job:
    return Job(name="cell", arguments=(), log=Path("unused"), **settings)


def test_no_cluster_at_the_address_is_one_line(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")

    def refuse(**_):
        raise ConnectionError("Ray is not running at 127.0.0.1:1\nand more")

    monkeypatch.setattr(cluster.ray, "init", refuse)
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: no cluster answers there") as said:
        cluster.make_runner(sweep(), job())
    assert "\n" not in str(said.value)


def test_a_cell_larger_than_any_node_is_refused(monkeypatch):
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    cluster.check_fits(job(cpus=4.0))
    with pytest.raises(ConfigError, match="cell: needs 5 CPU and 0 GPU on one node, the largest has 4 CPU"):
        cluster.check_fits(job(cpus=5.0))


def test_results_must_not_go_where_ray_deletes_them(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    working_dir = tmp_path / "runtime_resources" / "working_dir_files" / "package"
    working_dir.mkdir(parents=True)
    monkeypatch.chdir(working_dir)
    with pytest.raises(ConfigError, match="output=runs: lies in the job's working directory"):
        cluster.check_output("runs")
    cluster.check_output(str(tmp_path / "runs"))


def test_without_an_address_cells_run_here(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster.make_runner(sweep(parallel=3), job()).slots == 3


def test_a_cluster_that_grows_need_not_have_the_nodes_yet(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setattr(cluster, "connect", lambda: None)
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 0.0}}])
    with pytest.raises(ConfigError, match="grows=true"):
        cluster.make_runner(sweep(), job(cpus=2.0))
    assert cluster.make_runner(sweep(grows=True), job(cpus=2.0)).width == 1
