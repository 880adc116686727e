"""Does the world model earn its place? The action stage is shown other next frames than the one that was imagined.

`own`    what the model imagines.
`none`   the learned vector that stands for "no frame shown".
`zeros`  a frame of zeros in the encoder's units.
`other`  what the model imagined at the same chunk of another episode of the same task (the next seed's).
`true`   what is really seen tau steps on if the robot executes the chunk that `own` would take: a second simulator
         makes the scene from its recipe, replays what was executed (bit for bit, checked) and goes on with that chunk.

Noise, seeds and everything else are equal. In closed loop the rows are success on paired seeds. On held-out windows of
experts they are the action error, where `true` is the expert's own next frame, beside the frame error of f^ and that of
repeating the present frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.kept import Kept, Measured
from benchmarks.scored import Scored, success_row
from embodichain.app.components import make_session
from embodichain.app.config import RunConfig
from embodichain.app.policies import ModelPolicy, fill_joint_targets
from embodichain.contracts import PolicyInput
from embodichain.encoders.text import TextEncoder
from embodichain.evaluation.closed_loop import AT_ONCE, Trial, TrialResult
from embodichain.evaluation.heldout import make_heldout_episodes
from embodichain.replay.heldout import heldout_batch
from envs import PandaKinematics
from learner.batch import TensorBatch, prepare_batch
from learner.heldout import HELDOUT_NOISE_SEED, heldout_error
from tasks.session import TaskSession, sim_hash

Propose = Callable[[], Tensor]
VARIANTS = ("own", "none", "zeros", "other", "true")


class Shown:
    """A policy whose action stage is shown what `show` returns; as it is, what was imagined.

    Attributes:
        dreams: of every episode so far, the frames [L, C] that were imagined in it.
    """

    needs_rgb = False

    def __init__(self, scored: Scored) -> None:
        self.scored = scored
        self.policy = ModelPolicy(
            scored.model, replan=scored.config.evaluation.replan, substitute=lambda f, chunk: self.show(f, chunk)
        )
        self.replan, self.encoder_id = self.policy.replan, self.policy.encoder_id
        self.dreams: list[list[np.ndarray]] = []

    def begin(self, trial: Trial) -> None:
        """Told before the trial starts."""
        self.dreams.append([])

    def reset(self, instruction: str) -> None:
        """See `Policy.reset`."""
        self.policy.reset(instruction)

    def step(self, seen: PolicyInput) -> np.ndarray:
        """See `Policy.step`."""
        chunk = self.policy.step(seen)
        assert self.policy.runtime.imagined is not None
        self.dreams[-1].append(self.policy.runtime.imagined[0])
        return chunk

    def show(self, imagined: Tensor, propose: Propose) -> Tensor | None:
        """What the action stage sees as next frame, [1, L, C]."""
        return imagined


class Nothing(Shown):
    """`none`."""

    def show(self, imagined: Tensor, propose: Propose) -> None:
        """No frame."""
        return


class Zeros(Shown):
    """`zeros`."""

    def show(self, imagined: Tensor, propose: Propose) -> Tensor:
        """A frame of zeros."""
        return torch.zeros_like(imagined)


class Other(Shown):
    """`other`: `bank` are the dreams of `own` on the same trials."""

    def __init__(self, scored: Scored, bank: list[list[np.ndarray]]) -> None:
        super().__init__(scored)
        self._bank = bank

    def show(self, imagined: Tensor, propose: Propose) -> Tensor:
        """The next episode's frame of the same chunk; its last one where it was shorter."""
        dreams = self._bank[len(self.dreams) % len(self._bank)]
        return torch.from_numpy(dreams[min(len(self.dreams[-1]), len(dreams) - 1)])[None].to(imagined.dtype)


class Foreseen(Shown):
    """`true`: what a second simulator shows."""

    def __init__(self, scored: Scored, session: TaskSession) -> None:
        super().__init__(scored)
        self._session, self._kinematics = session, PandaKinematics()
        self._trial: Trial | None = None
        self._executed: list[np.ndarray] = []
        self._seen: PolicyInput | None = None

    def begin(self, trial: Trial) -> None:
        """See `Shown.begin`."""
        super().begin(trial)
        self._trial, self._executed = trial, []

    def step(self, seen: PolicyInput) -> np.ndarray:
        """See `Policy.step`."""
        self._executed += list(seen.executed)
        self._seen = seen
        return super().step(seen)

    def show(self, imagined: Tensor, propose: Propose) -> Tensor:
        """The frame tau steps on, in the second simulator."""
        assert self._trial is not None
        assert self._seen is not None
        encoder, data = self.scored.encoder, self.scored.model.data
        proprio = self._seen.observation.proprio
        chunk = propose()[0].float().cpu().numpy()
        if data.control == "eef":
            fill_joint_targets(chunk, proprio, self._kinematics, data.tau)
        observation = self._session.reset(self._trial.recipe)
        for action in self._executed:
            observation = self._session.step(action)
        if not np.array_equal(observation.proprio, proprio):
            raise RuntimeError(f"seed {self._trial.recipe.seed}: the replay of {len(self._executed)} steps diverged")
        for action in chunk[: data.tau]:
            observation = self._session.step(action)
        if encoder.needs_rgb:
            observation = self._session.observe(rgb=True)
        return torch.from_numpy(encoder.encode(observation).astype(np.float32))[None]


def run(
    config: RunConfig,
    checkpoint: str,
    task: str,
    seeds: int,
    heldout: int,
    baseline: tuple[RunConfig, str] | None,
    kept: Kept,
) -> Iterator[dict[str, object]]:
    """Rows of the held-out windows first, then of the closed loop, as soon as each is known.

    `baseline` is the configuration and checkpoint of a plain policy, scored on the same seeds.

    Raises:
        ValueError: the checkpoint's model imagines nothing.
    """
    scored = Scored.load(config, checkpoint)
    if config.learner.network.kind == "flow_policy" or not scored.model.config.condition.use:
        raise ValueError(f"{checkpoint}: its model imagines no next frame; expected a world model")
    yield from held_out(scored, task, heldout)
    trials = cache(partial(scored.trials, task, seeds))
    bank: list[list[np.ndarray]] = []

    def measure(name: str) -> Measured:
        if name == "other" and not bank:  # what `own` imagined was not kept
            measure("own")
        policy = _variant(name, scored, bank)
        results = []
        for trial in trials():
            policy.begin(trial)
            results.append(scored.run(policy, trial, AT_ONCE))
        if name == "own":
            bank.extend(policy.dreams)
        return results, {}

    own: list[TrialResult] = []
    for name in VARIANTS:
        results, _ = kept({"shown": name}, partial(measure, name))
        own = own or results
        yield {"on": "closed loop", "task": task, "shown": name, **success_row(results, own)}
    if baseline is not None:
        results, _ = kept({"baseline": baseline[1]}, partial(_score, *baseline, trials))
        name = f"baseline: {baseline[0].learner.network.kind}"
        yield {"on": "closed loop", "task": task, "shown": name, **success_row(results, own)}


def _score(config: RunConfig, checkpoint: str, trials: Callable[[], list[Trial]]) -> Measured:
    """A policy as it is."""
    scored = Scored.load(config, checkpoint)
    policy = ModelPolicy(scored.model, replan=config.evaluation.replan)
    return [scored.run(policy, trial, AT_ONCE) for trial in trials()], {}


def _variant(name: str, scored: Scored, bank: list[list[np.ndarray]]) -> Shown:
    if name == "other":
        return Other(scored, bank)
    if name == "true":
        return Foreseen(scored, make_session(scored.config, render=False))
    return {"own": Shown, "none": Nothing, "zeros": Zeros}[name](scored)


def held_out(scored: Scored, task: str, episodes: int) -> list[dict[str, object]]:
    """Frame and action errors on the windows of `episodes` held-out expert episodes."""
    config, model = scored.config, scored.model
    made = make_heldout_episodes(
        scored.session, scored.encoder, [task], config.domain, episodes, config.window.tau, sim_hash()
    )
    windows = heldout_batch(made, config.window)
    batch = prepare_batch(windows, TextEncoder().encode(windows.instruction))
    error = heldout_error(model, batch, torch.Generator().manual_seed(HELDOUT_NOISE_SEED))
    base: dict[str, object] = {"on": "held-out windows", "task": task, "n": batch.size}
    rows = [{**base, "shown": "", "frame_rms": error.frame, "copy_rms": error.frame_copy}]
    episode_of = np.unique(windows.recipe_id, return_inverse=True)[1]
    errors = action_errors(model, batch, other_windows(episode_of))
    return rows + [{**base, "shown": name, f"action_{error.unit}": value} for name, value in errors.items()]


def other_windows(episode_of: np.ndarray) -> np.ndarray:
    """i64[B], for every window one of another episode. Raises `ValueError` where there is one episode alone."""
    count = len(episode_of)
    chosen = np.arange(count)
    for i in range(count):
        others = np.flatnonzero(episode_of != episode_of[i])
        if not len(others):
            raise ValueError("held-out windows of one episode alone: expected at least two, to exchange frames between")
        chosen[i] = others[i % len(others)]
    return chosen


@torch.no_grad()
def action_errors(model: Any, batch: TensorBatch, other: np.ndarray) -> dict[str, float]:
    """Mean absolute action error under each variant, in the codec's unit, over frames whose next frame exists."""
    rng = torch.Generator().manual_seed(HELDOUT_NOISE_SEED)
    p, tau = model.preprocess, model.data.tau
    sums, count = dict.fromkeys(VARIANTS, 0.0), 0.0
    memory = model.initial_memory(batch.size)
    for t in range(batch.frames):
        frame = batch.frame(t)
        seen = batch.frame_mask[:, t]
        memory = model.observe(memory, frame, batch.previous_action[:, t], batch.previous_mask[:, t], exists=seen)
        imagined = model.imagine(memory, frame, rng)
        shown = {
            "own": imagined,
            "none": None,
            "zeros": torch.zeros_like(imagined),
            "other": imagined[torch.from_numpy(other)],
            "true": batch.tokens[:, t + 1],
        }
        valid = p.codec.error_valid(batch.action_valid)[:, None]
        both = seen & batch.frame_mask[:, t + 1]
        mask = batch.action_mask[:, t, :tau, None] & valid & both[:, None, None]
        count += float(mask.sum())
        state = rng.get_state()
        for name, condition in shown.items():
            rng.set_state(state)
            level = 1.0 if name == "true" else None
            chunk = model.act(memory, frame, condition, rng, level=level)[:, :tau]
            sums[name] += float(torch.where(mask, p.codec.error(chunk, batch.action[:, t, :tau]), 0.0).sum())
    return {name: total / count for name, total in sums.items()}
