"""What an answer costs in time, and what not waiting for it costs in success: sync, naive async and SAI.

Blocking latency is the time from the arrival of an observation to the first action of the chunk that uses it. It is
given three times: in network passes, as wall time of the policy's answer, and in control steps of the logical clock,
on which a whole chunk takes `delay` steps. All settings run on the same seeds; the step limit grows with the delay, so
that waiting alone fails nobody. Beside SAI stands `sync` with one solver step for each flow: it waits as short a time,
and speculates on nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.kept import Kept, Measured
from benchmarks.scored import Scored, success_row
from embodichain.app.config import RunConfig
from embodichain.app.policies import ModelPolicy
from embodichain.evaluation.closed_loop import Trial
from embodichain.evaluation.timing import Timing
from learner.runtime import RuntimeConfig
from learner.train_step import Model


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row: a mode under a delay.

    Attributes:
        mode: as in `Timing`. `s_video`, `s_action`: how far `sai` integrates either flow ahead.
        delay: control steps that a whole chunk takes.
        drop_stale: see `Timing`.
        one_step: each flow is followed in one step of the solver: a cheaper chunk, which takes less of the delay.
    """

    mode: str
    delay: float
    s_video: float = 0.0
    s_action: float = 0.0
    drop_stale: bool = True
    one_step: bool = False

    @property
    def runtime(self) -> RuntimeConfig:
        """Of the policy."""
        return RuntimeConfig(mode=self.mode, s_video=self.s_video, s_action=self.s_action)

    @property
    def name(self) -> str:
        """For tables."""
        if self.one_step:
            return f"{self.mode}, one step a flow"
        return "naive_async, from its first action" if not self.drop_stale else self.mode

    def timing(self, share: float) -> Timing:
        """Of the loop, where a chunk takes that share of the passes of the model's own."""
        return Timing(mode=self.mode, latency_steps=share * self.delay, drop_stale=self.drop_stale)


def settings(delays: list[float], ahead: list[tuple[float, float]]) -> list[Setting]:
    """Every setting of the sweep; each delay begins with `sync`, to which the others are compared.

    `ahead` holds the pairs (s_video, s_action) of `sai`.
    """
    found = []
    for delay in delays:
        found += [Setting(mode="sync", delay=delay), Setting(mode="sync", delay=delay, one_step=True)]
        found.append(Setting(mode="naive_async", delay=delay))
        found.append(Setting(mode="naive_async", delay=delay, drop_stale=False))
        found += [Setting(mode="sai", delay=delay, s_video=video, s_action=action) for video, action in ahead]
    return found


def run(
    config: RunConfig, checkpoint: str, task: str, seeds: int, sweep: list[Setting], kept: Kept
) -> Iterator[dict[str, object]]:
    """A row per setting, as soon as it is known."""
    subject = cache(partial(_subject, config, checkpoint, task, seeds))
    sync: dict[float, Measured] = {}
    for setting in sweep:
        results, row = kept(asdict(setting), partial(_measure, subject, setting))
        sync.setdefault(setting.delay, (results, row))
        reference, before = sync[setting.delay]
        cut = {
            f"{key}_cut": 1.0 - float(str(row[key])) / float(str(before[key])) if before[key] else 0.0
            for key in ("passes_blocking", "latency_steps", "answer_ms")
        }
        yield {"task": task, **row, **cut, **success_row(results, reference)}


def _subject(config: RunConfig, checkpoint: str, task: str, seeds: int) -> tuple[Scored, list[Trial]]:
    scored = Scored.load(config, checkpoint)
    return scored, scored.trials(task, seeds)


def _measure(subject: Callable[[], tuple[Scored, list[Trial]]], setting: Setting) -> Measured:
    scored, trials = subject()
    replan = scored.config.evaluation.replan
    model = _with_one_step(scored.model) if setting.one_step else scored.model
    policy = ModelPolicy(model, replan=replan, runtime=setting.runtime)
    share = policy.work.whole / setting.runtime.work(scored.model.config.flow).whole
    slack = 1.0 + setting.delay / replan
    results = [scored.run(policy, trial, setting.timing(share), slack) for trial in trials]
    chunks = [result.chunks for result in results]
    won = [result.steps for result in results if result.success]
    work = policy.work
    return results, {
        "mode": setting.name,
        "ahead": f"video {setting.s_video:g}, action {setting.s_action:g}" if setting.mode == "sai" else "",
        "delay_steps": setting.delay,
        "passes_whole": work.whole,
        "passes_ahead": work.ahead,
        "passes_blocking": work.blocking,
        "latency_steps": float(np.average([result.latency_steps for result in results], weights=chunks)),
        "answer_ms": 1000.0 * float(np.average([result.latency_s for result in results], weights=chunks)),
        "total_steps": share * setting.delay * (work.ahead + work.blocking) / work.whole,
        "held_share": sum(r.held for r in results) / max(1, sum(r.steps for r in results)),
        "steps_to_success": float(np.mean(won)) if won else float("nan"),
    }


def _with_one_step(model: Model) -> Model:
    """The same weights, whose flows are followed in one step each."""
    fewer = copy.copy(model)
    flow = replace(model.config.flow, video_steps=1, action_steps=1, action_stop=1.0)
    fewer.config = replace(model.config, flow=flow)
    return fewer


def plot(rows: list[dict[str, object]], path: Path) -> Path:
    """Success and blocking latency, a line per setting, a colour per delay."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(_label(row) for row in rows))
    delays = list(dict.fromkeys(float(str(row["delay_steps"])) for row in rows))
    figure = Figure(figsize=(11, 1.4 + 0.4 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, delay in enumerate(delays):
        own = [row for row in rows if row["delay_steps"] == delay]
        y = [names.index(_label(row)) + 0.3 * (index - (len(delays) - 1) / 2) for row in own]
        x, low, high = ([100 * float(str(row[key])) for row in own] for key in ("success", "low", "high"))
        error = np.maximum(0.0, [np.subtract(x, low), np.subtract(high, x)])
        left.errorbar(x, y, xerr=error, fmt="o", capsize=3)
        waits = [float(str(row["latency_steps"])) for row in own]
        right.plot(waits, y, "o", label=f"a whole chunk takes {delay:g} steps")
    left.set(xlabel="success, % (Wilson 95 %)", xlim=(-3, 103))
    left.set_title(f"{rows[0]['task']}, n = {rows[0]['n']}, paired seeds")
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    right.set(xlabel="observation to first action, control steps", xlim=(-0.3, None))
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    return path


def _label(row: dict[str, object]) -> str:
    return f"{row['mode']}{': ' if row['ahead'] else ''}{row['ahead']}"
