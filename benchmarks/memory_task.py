"""Closed loop on a task that needs memory: the same episodes, steps and seeds for each kind of memory.

`recall_lane` is lost at the first wrong choice between two lanes, which nothing but the past tells apart: a policy that
remembers nothing is at one half of what it could do otherwise. All kinds learn from one archive and are scored on the
same seeds; `lane` says, of the blocks that came across, how many lie nearer to the right disc, so that remembering is
told apart from precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embodichain.app.config import LearnerConfig
from embodichain.app.fit import FitConfig, fit, resume
from embodichain.app.policies import load_policy
from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import Recipe, WindowSpec, seed_range, wilson_interval
from embodichain.encoders import StateEncoder
from embodichain.evaluation.closed_loop import Trial, eval_recipes, expert_lengths, run_trial
from embodichain.replay import ReplayConfig
from embodichain.rollout import RolloutOptions, make_episode
from learner.config import FlowConfig, MemoryConfig, ModelConfig
from tasks.recall_lane import MIDDLE, lane_of
from tasks.registry import slots
from tasks.session import TaskSession, sim_hash

TASK = "recall_lane"
WINDOW = WindowSpec(frames=20, tau=8, chunk=16)  # most episodes from beginning to end
REPLAN = 8  # control steps
STEP_LIMIT = 1.5  # times the expert's length
MEMORY = MemoryConfig(layers=(1, 2), dim=48, lr=0.5, decay=1.0, window=4, context_frames=0)
NETWORK = ModelConfig(flow=FlowConfig(video_steps=2, action_steps=4), memory=MEMORY)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to compare.

    Attributes:
        kinds: of memory. `folder`: for the archive and the fits; what is there already is not made again.
        episodes: to learn from. `steps`: of each fit. `windows`: per step.
        seeds: scored. `seed_range`: which. `threads`: of torch.
    """

    kinds: tuple[str, ...]
    folder: Path
    episodes: int
    steps: int
    windows: int
    seeds: int
    seed_range: str = "tune"
    threads: int = 1


def run(job: Job, say: Callable[[str], None]) -> Iterator[dict[str, object]]:
    """One row per kind; `say` is told what is being done."""
    session, encoder = TaskSession(render=None), StateEncoder(**slots([TASK]))
    archive = _archive(job, session, encoder, say)
    recipes = eval_recipes(TASK, "default", range(job.seeds), sim_hash(), job.seed_range)
    lengths = expert_lengths(session, encoder, recipes, {})
    trials = [Trial(recipe=r, expert_steps=lengths[r.seed]) for r in recipes if lengths[r.seed]]
    first: list[bool] = []
    for kind in job.kinds:
        checkpoint, losses = _fit(job, kind, archive, say)
        say(f"{kind}: {len(trials)} seeds")
        policy = load_policy(str(checkpoint), replan=REPLAN)
        success, lanes = [], []
        for trial in trials:
            success.append(run_trial(session, encoder, policy, trial, STEP_LIMIT).success)
            lanes.append(_lane(session))
        first = first or success
        low, high = wilson_interval(sum(success), len(success))
        across = [right for right in lanes if right is not None]
        yield {
            "memory": kind,
            "seed_range": job.seed_range,
            "n": len(success),
            "rate": sum(success) / len(success),
            "low": low,
            "high": high,
            "across": len(across),
            "lane": sum(across) / len(across) if across else float("nan"),
            f"won_where_{job.kinds[0]}_lost": sum(s and not f for s, f in zip(success, first, strict=True)),
            f"lost_where_{job.kinds[0]}_won": sum(f and not s for s, f in zip(success, first, strict=True)),
            "steps": job.steps,
            "episodes": job.episodes,
            **losses,
        }
    session.close()


def _archive(job: Job, session: TaskSession, encoder: StateEncoder, say: Callable[[str], None]) -> Path:
    """An archive of `job.episodes` episodes of training seeds."""
    path = job.folder / f"episodes_{job.episodes}"
    made_with = {"tasks": [TASK], "domain": "default", "encoder": {"name": "state"}, "sim_hash": sim_hash(TASK)}
    archive = Archive.create(str(path), made_with=made_with)
    kept = archive.entries()
    missing = job.episodes - len(kept)
    if missing <= 0:
        return path
    train = seed_range("train")
    index = max((entry.recipe.seed - train.at(0) + 1 for entry in kept), default=0)
    with ArchiveWriter(archive, 0) as writer:
        while missing > 0:
            say(f"{missing} of {job.episodes} episodes to make")
            recipe = Recipe(task=TASK, seed=train.at(index), domain="default", sim_hash=sim_hash())
            episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions(tau=WINDOW.tau))
            index += 1
            if episode is not None and verdict.accepted:
                missing -= writer.append(episode)
    return path


def _fit(job: Job, kind: str, archive: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, float | None]]:
    """The last checkpoint of a fit of `job.steps` steps, and what it ended with."""
    learner = LearnerConfig(
        control="eef",
        threads=job.threads,
        steps=job.steps,
        batch_windows=job.windows,
        checkpoint_minutes=1e6,
        network=replace(NETWORK, memory=replace(MEMORY, kind=kind)),
    )
    stream = ReplayConfig(max_reuse=100_000, min_size_pairs=1, capacity_pairs=10_000_000)
    name = f"{kind}_{job.episodes}_{job.steps}_{job.windows}"
    config = FitConfig(
        name=name, output=str(job.folder), archive=str(archive), window=WINDOW, replay=stream, learner=learner
    )

    def tell(step: int, values: dict[str, float], spent: float) -> None:
        if step % 50 == 0 or step == job.steps:
            say(f"{kind}: step {step} of {job.steps}, loss {values['loss']:.3f}")

    begun = job.folder / name
    done = resume(begun, on_step=tell) if (begun / "fit.yaml").exists() else fit(config, on_step=tell)
    errors = done["heldout_error"]
    kept = {"heldout_action": errors["last"], "heldout_input_blind": errors["input_blind"]} if errors else {}
    checkpoint = job.folder / done["name"] / "checkpoints" / f"step_{done['learner_steps']}"
    return checkpoint, {"loss": done["loss"]["last"], **kept}


def _lane(session: TaskSession) -> bool | None:
    """Whether a block that came across the middle lies nearer to the disc of its own lane; None if it did not."""
    observation, start = session.observe(), session.scene.spec.objects[0].pose
    end = observation.object_pose[0, :2]
    if abs(end[1]) < MIDDLE or end[1] * start[1] > 0:
        return None
    return int(np.linalg.norm(observation.goal_pose[:, :2] - end, axis=1).argmin()) == lane_of(session.scene)


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Success of each kind, and how often a block that came across is in its lane, where 50 % is to guess."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, key, hits, label in zip(
        panels, ("n", "across"), ("rate", "lane"), ("success", "in its lane, of the blocks across"), strict=True
    ):
        for y, row in enumerate(rows):
            n, rate = int(str(row[key])), float(str(row[hits]))
            if n == 0:
                continue
            low, high = wilson_interval(round(rate * n), n)
            error = np.maximum(0.0, [[rate - low], [high - rate]])
            panel.errorbar(100 * rate, y, xerr=100 * error, fmt="o", capsize=3)
            panel.annotate(f"n = {n}", (100 * rate, y), xytext=(0, 6), textcoords="offset points", fontsize=7)
        panel.set(xlim=(-3, 103), xlabel=f"{label}, % (Wilson 95 %)", ylim=(len(rows) - 0.5, -0.5))
        panel.set_yticks(range(len(rows)), [str(row["memory"]) for row in rows])
        panel.grid(alpha=0.3)
    panels[1].axvline(50, linestyle=":", color="grey")
    figure.savefig(path, dpi=130)
