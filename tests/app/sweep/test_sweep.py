"""A sweep from its file to its report on a runner that only writes what a run would have left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.exceptions import MlflowException

from embodichain.app.settings import ConfigError
from embodichain.app.sweep import launch, report
from embodichain.app.sweep.config import load_sweep
from embodichain.app.sweep.folder import SweepFolder
from embodichain.app.sweep.launch import INTERRUPTED, Sweep
from embodichain.app.sweep.process import Outcome

ROOT = Path(__file__).parents[3]
SETTINGS: dict[str, Any] = {
    "name": "trial",
    "base": str(ROOT / "configs" / "tiny.yaml"),
    "arms": {"a": {"set": {"replay.max_reuse": 2}}, "b": {"set": {"replay.max_reuse": 4}}},
    "seeds": [0, 1],
}


class FakeRecord:
    """What `SweepRecord` is to a sweep, without MLflow."""

    discarded: list[str]
    run_id = "parent"

    def __init__(self, mlflow, output, name, run_id, params):
        self.discarded, self.finished, self.mlflow = [], [], mlflow

    def child(self, mlflow, labels):
        return mlflow

    def discard(self, run_id):
        self.discarded.append(run_id)

    def finish(self, status):
        self.finished.append(status)
        return True


class Done:
    def __init__(self, outcome: Outcome):
        self.outcome = outcome

    def poll(self):
        return self.outcome

    def interrupt(self):
        pass

    def kill(self):
        pass


class FakeRunner:
    """Leaves a finished run behind for every cell; `fail`: names whose process ends with an error; `kill_at`: the
    sweep is killed when so many cells have been started."""

    slots = width = 1

    def __init__(self, *, fail: tuple[str, ...] = (), kill_at: int | None = None, steps: int | None = None):
        self.fail, self.kill_at, self.steps = fail, kill_at, steps
        self.started: list[str] = []
        self.configs: dict[str, Any] = {}

    def start(self, job):
        if len(self.started) == self.kill_at:
            raise SystemExit("killed")
        self.started.append(job.name)
        config = yaml.safe_load(Path(job.arguments[-1]).read_text())
        self.configs[job.name] = config
        if job.name in self.fail:
            return Done(Outcome(reason="exit code 1: broken"))
        steps = config["learner"]["steps"] if self.steps is None else self.steps
        error = config["learner"]["train"]["lr"] / config["replay"]["max_reuse"]
        run = Path(config["output"]) / config["name"]
        run.mkdir(parents=True)
        summary = {
            "status": "done",
            "learner_steps": steps,
            "heldout_error": {"last": error, "unit": "rad"},
            "readings": [{"step": steps, "error": error}],
            "success": [
                {"task": task, "domain": config["domain"], "n": config["evaluation"]["seeds"], "left_out": 0}
                for task, share in config["tasks"].items()
                if share
            ],
        }
        (run / "summary.json").write_text(json.dumps(summary))
        return Done(Outcome(seconds=1.0))


@pytest.fixture(autouse=True)
def without_mlflow(monkeypatch):
    monkeypatch.setattr(launch, "SweepRecord", FakeRecord)
    monkeypatch.setattr(report, "publish", lambda *_: None)
    monkeypatch.setattr(report, "write_law", lambda *_: "No analysis here.")


def new(folder: Path, **settings: Any) -> SweepFolder:
    folder.mkdir(exist_ok=True)
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "output": str(folder / "runs"), **settings}, sort_keys=False))
    return SweepFolder.create(load_sweep(path), path)


def start(folder: SweepFolder, runner: FakeRunner, **options: Any) -> int:
    """One start of a sweep, as `launch` and `resume` make it."""
    opened, config = SweepFolder.open(str(folder.path))
    sweep = Sweep(opened, config, runner, **options)
    try:
        return sweep.execute()
    finally:
        opened._lock.close()


def test_every_cell_is_run_once_and_the_report_says_how(tmp_path):
    folder, runner = new(tmp_path), FakeRunner()
    assert start(folder, runner) == 0
    assert runner.started == ["a-s0", "b-s0", "a-s1", "b-s1"]  # whole replicates first
    assert "4 of 4 cells finished" in folder.report.read_text()
    cell = json.loads((folder.path / "b-s1" / "cell.json").read_text())
    assert (cell["arm"], cell["seed"]) == ("b", 1)


def test_a_sweep_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path):
    undisturbed = new(tmp_path / "one", output=str(tmp_path / "one"))
    start(undisturbed, FakeRunner())
    folder = new(tmp_path / "two", output=str(tmp_path / "two"))
    started: list[str] = []
    for kill_at in (0, 1, 2):
        runner = FakeRunner(kill_at=kill_at)
        with pytest.raises(SystemExit):
            start(folder, runner)
        started += runner.started
    runner = FakeRunner()
    assert start(folder, runner) == 0
    assert sorted(started + runner.started) == ["a-s0", "a-s1", "b-s0", "b-s1"]  # none twice
    for cell in ("a-s0", "a-s1", "b-s0", "b-s1"):
        for file in ("summary.json", "cell.json"):
            assert (folder.path / cell / file).read_text() == (undisturbed.path / cell / file).read_text()


def test_a_finished_sweep_runs_nothing_again(tmp_path):
    folder = new(tmp_path)
    start(folder, FakeRunner())
    again = FakeRunner()
    assert start(folder, again) == 0
    assert again.started == []


def test_a_failed_cell_says_so_where_its_run_lies(tmp_path):
    folder = new(tmp_path)
    start(folder, FakeRunner(fail=("a-s1",)))
    cell = json.loads((folder.path / "a-s1" / "cell.json").read_text())
    assert (cell["arm"], cell["failed"]) == ("a", "exit code 1: broken")
    assert "failed" not in json.loads((folder.path / "a-s0" / "cell.json").read_text())
    assert start(folder, FakeRunner(), retry_failed=True) == 0
    assert "failed" not in json.loads((folder.path / "a-s1" / "cell.json").read_text())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"faults": {"evaluation_block_given_up": 1}, "fewer": 1},
            "pick_place was scored on 1 of 2 seeds: evaluators died",
        ),
        ({"fewer": 1}, "the expert fails on 9 of those tried"),
        ({"success": []}, "pick_place was scored on 0 of 2 seeds"),
        ({"readings": [{"step": 1, "error": 0.1}]}, "its last checkpoint has no held-out error: evaluators died"),
        (
            {"readings": [{"step": 40, "error": None, "errors": {"default": None}}]},
            "its last checkpoint has no held-out error: not finite",
        ),
    ],
)
def test_a_cell_that_lacks_what_the_others_have_is_no_result(changes, why, tmp_path):
    folder = new(tmp_path)

    class Losing(FakeRunner):
        def start(self, job):
            done = super().start(job)
            path = Path(self.configs[job.name]["output"]) / job.name / "summary.json"
            summary = json.loads(path.read_text())
            if job.name == "b-s0":
                summary["success"][0]["n"] -= changes.get("fewer", 0)
                summary["success"][0]["left_out"] = 9
                path.write_text(json.dumps({**summary, **changes}))
            return done

    assert start(folder, Losing()) == 1
    (line,) = (line for line in folder.report.read_text().splitlines() if "failed and left out" in line)
    assert "`b-s0`: " in line
    assert why in line
    text = folder.report.read_text()
    assert "3 of 4 cells finished" in text


def test_wall_time_survives_a_kill(tmp_path):
    folder = new(tmp_path)
    with pytest.raises(SystemExit):
        start(folder, FakeRunner(kill_at=2))
    before = folder.journal().wall_seconds
    assert before > 0
    start(folder, FakeRunner())
    assert folder.journal().wall_seconds > before


def test_what_a_kill_left_of_a_sweep_that_was_being_made_is_in_nobodys_way(tmp_path, monkeypatch):
    monkeypatch.setattr(SweepFolder, "write_journal", lambda *_: (_ for _ in ()).throw(SystemExit("killed")))
    with pytest.raises(SystemExit):
        new(tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "runs" / SETTINGS["name"]).exists()
    assert new(tmp_path).journal().starts == 0


def test_a_record_that_fails_at_the_end_costs_no_result(tmp_path, monkeypatch, capsys):
    def lost(*_):
        raise MlflowException("the store went away\nand more")

    monkeypatch.setattr(report, "publish", lost)
    folder = new(tmp_path)
    assert start(folder, FakeRunner()) == 0
    assert "4 of 4 cells finished" in folder.report.read_text()
    assert "MLflow has no report of this sweep: the store went away" in capsys.readouterr().out


def test_a_failed_cell_is_left_alone_until_it_is_asked_for(tmp_path):
    folder = new(tmp_path)
    assert start(folder, FakeRunner(fail=("a-s1",))) == 1
    assert "`a-s1`: exit code 1: broken" in folder.report.read_text()
    again = FakeRunner()
    assert start(folder, again) == 1
    assert again.started == []
    assert start(folder, again, retry_failed=True) == 0
    assert again.started == ["a-s1"]
    assert "4 of 4 cells finished" in folder.report.read_text()


def test_only_a_cells_own_summary_says_that_it_is_finished(tmp_path):
    folder = new(tmp_path)
    start(folder, FakeRunner())
    summary = folder.path / "a-s0" / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "status": "stopped"}))
    again = FakeRunner()
    assert start(folder, again) == 0
    assert again.started == ["a-s0"]
    assert (folder.work / "attempts" / "a-s0-1" / "summary.json").exists()  # the earlier one is kept aside


def test_a_run_that_ended_early_is_no_result(tmp_path):
    folder = new(tmp_path)
    assert start(folder, FakeRunner(steps=3)) == 1
    assert "ended after 3 of 40 steps: its archive was used up" in next(iter(folder.journal().entries.values())).failed


def test_an_interrupted_cell_goes_on_from_its_checkpoint_where_that_is_wanted(tmp_path):
    folder = new(tmp_path, interrupted="resume")
    (folder.path / "a-s0" / "checkpoints" / "step_5").mkdir(parents=True)  # what an earlier start had left
    jobs: list[tuple[str, ...]] = []

    class Crashing(FakeRunner):
        def start(self, job):
            jobs.append(job.arguments)
            return Done(Outcome(reason="exit code 1: broken"))

    runner = Crashing()
    start(folder, runner)
    assert jobs[0] == ("run", "--resume", str(folder.path / "a-s0"))
    assert jobs[1] == ("run", str(folder.work / "configs" / "b-s0.yaml"))
    jobs.clear()
    start(folder, runner, retry_failed=True)  # what failed begins anew
    assert jobs[0] == ("run", str(folder.work / "configs" / "a-s0.yaml"))
    assert not (folder.path / "a-s0" / "checkpoints").exists()


def test_trials_come_first_and_every_group_keeps_its_best(tmp_path):
    folder = new(tmp_path, tune={"grid": {"learner.train.lr": [0.003, 0.001]}, "set": {"learner.steps": 5}})
    runner = FakeRunner(fail=("tune-b-lr0.001",))
    assert start(folder, runner) == 0
    assert len(runner.started) == 4 + 4
    assert all(name.startswith("tune-") for name in runner.started[:4])
    rates = {name: config["learner"]["train"]["lr"] for name, config in runner.configs.items()}
    assert (rates["a-s0"], rates["a-s1"]) == (0.001, 0.001)
    assert (rates["b-s0"], rates["b-s1"]) == (0.003, 0.003)  # its other trial failed
    assert "every group had the same 2 trial(s)" in folder.report.read_text()
    assert not (folder.path / "tune-a-lr0.003").exists()  # trials are no results


def test_a_trial_that_is_repeated_does_not_change_what_finished_cells_were_tuned_to(tmp_path):
    tune = {"grid": {"learner.train.lr": [0.1, 0.2]}, "set": {"learner.steps": 5}}
    folder = new(tmp_path, tune=tune)
    start(folder, FakeRunner(fail=("tune-a-lr0.1",)))
    assert folder.journal().choices["a"]["settings"] == {"learner.train.lr": 0.2}
    start(folder, FakeRunner(), retry_failed=True)
    assert folder.journal().choices["a"]["settings"] == {"learner.train.lr": 0.2}


def test_a_stop_ends_the_sweep_and_says_how_to_go_on(tmp_path, capsys):
    folder, runner = new(tmp_path), FakeRunner()
    opened, config = SweepFolder.open(str(folder.path))
    sweep = Sweep(opened, config, runner)
    sweep.stop_requested = True
    assert sweep.execute() == INTERRUPTED
    assert "embodichain sweep --resume" in capsys.readouterr().out
    assert runner.started == []


def test_two_processes_cannot_work_on_one_sweep(tmp_path):
    folder = new(tmp_path)
    first, _ = SweepFolder.open(str(folder.path))
    first.hold()
    with pytest.raises(ConfigError, match="another process works on it"):
        start(folder, FakeRunner())


def test_a_name_that_is_taken_and_a_sweep_that_is_not_there_are_refused(tmp_path):
    new(tmp_path)
    with pytest.raises(ConfigError, match="--resume trial"):
        new(tmp_path)
    with pytest.raises(ConfigError, match="no sweep there"):
        SweepFolder.open(str(tmp_path / "nowhere"))


def test_a_plan_that_is_not_committed_is_refused_where_that_is_asked_for(tmp_path):
    import subprocess

    plan = tmp_path / "plan.yaml"
    plan.write_text("name: x\n")
    launch.check_committed(plan)  # no repository: nothing to compare with
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "-q"], check=True)
    with pytest.raises(ConfigError, match="not committed"):
        launch.check_committed(plan)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "plan"], check=True)
    launch.check_committed(plan)
    plan.write_text("name: y\n")
    with pytest.raises(ConfigError, match="not committed"):
        launch.check_committed(plan)
