"""One rollout with what a model imagines at every frame of it: the data behind `embodichain imagine`.

Either the expert acts, and the model looks on: then its chunks can be compared with the expert's and its imagined
frames with what came. Or the model acts itself. Its memory gets what was really executed either way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from embodichain.app.policies import fill_joint_targets
from embodichain.contracts import ACTION_DIM, Recipe
from embodichain.encoders import Encoder
from embodichain.encoders.state import places_of
from embodichain.encoders.text import TextEncoder
from embodichain.evaluation.realtime import NotFinite
from embodichain.rollout.episode import HOLD_STEPS
from envs import PandaKinematics
from learner.batch import Frame
from learner.interface import WorldActionModel
from learner.train_step import Model
from tasks.base import ExpertPlan
from tasks.session import TaskSession

NOISE_SEED = 30_000
VIDEO_EVERY = 2  # control steps between pictures of the film
EXTRA_STEPS = 16  # that the expert's last action is held, so that the end is seen


@dataclass(frozen=True, kw_only=True)
class Dream:
    """A rollout of J model frames, tau control steps apart, T control steps in all.

    Attributes:
        instruction: what was asked for.
        by_expert: who acted.
        success: whether the task was done at the end.
        tau: control steps between frames.
        tokens: f32[J, L, C], what was seen. `token_mask`: bool[L].
        imagined: f32[J, L, C], what the model expected at each frame to see tau steps later.
        chunk: f32[J, N, A], what it wanted to do.
        action: f32[T, A], what was done.
        rgb: u8[J, V, H, W, 3], what the cameras saw; None for an encoder without cameras.
        film: u8[1 + T // VIDEO_EVERY, H, W, 3]; empty without a renderer.
    """

    instruction: str
    by_expert: bool
    success: bool
    tau: int
    tokens: np.ndarray
    token_mask: np.ndarray
    imagined: np.ndarray
    chunk: np.ndarray
    action: np.ndarray
    rgb: np.ndarray | None
    film: list[np.ndarray]


class Dreamer:
    """A model, its memory, and the noise it samples with; one episode."""

    def __init__(self, model: Model, instruction: str) -> None:
        self._model, self._tau = cast(WorldActionModel, model), model.data.tau
        self._rng = torch.Generator().manual_seed(NOISE_SEED)
        self._memory = self._model.initial_memory(1)
        self._text = torch.from_numpy(TextEncoder().encode([instruction]).astype(np.float32))

    @torch.inference_mode()
    def look(
        self, tokens: np.ndarray, token_mask: np.ndarray, proprio: np.ndarray, executed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """See a frame, after f32[tau, A] was `executed` (None: nothing yet); the imagined frame and the chunk.

        Raises `ValueError` for a model that imagines nothing, or shapes that do not fit it.
        """
        model = self._model
        frame = Frame(
            tokens=torch.from_numpy(tokens.astype(np.float32))[None],
            token_mask=torch.from_numpy(token_mask)[None],
            proprio=torch.from_numpy(proprio.astype(np.float32))[None],
            text=self._text,
            action_valid=torch.ones(1, ACTION_DIM, dtype=torch.bool),
        )
        frame.check(model.data)
        before = np.zeros((self._tau, ACTION_DIM), dtype=np.float32) if executed is None else executed
        known = torch.tensor([executed is not None])
        self._memory = model.observe(self._memory, frame, torch.from_numpy(before)[None], known)
        shown = model.imagine(self._memory, frame, self._rng)
        if shown is None:
            raise ValueError(f"a {model.config.kind} imagines nothing; expected a model with a world model (clwm)")
        whole = model.imagine(self._memory, frame, self._rng, stop=1.0)
        chunk = model.act(self._memory, frame, shown if model.config.condition.use else None, self._rng)
        assert whole is not None
        return whole[0].float().numpy(), chunk[0].float().numpy()


def dream(
    model: Model, session: TaskSession, encoder: Encoder, recipe: Recipe, *, by_expert: bool, limit: int, film: bool
) -> Dream:
    """One rollout of `recipe`.

    Args:
        model: in evaluation mode.
        session: with a renderer if the encoder needs one or a film is wanted.
        encoder: that the model was trained on.
        recipe: of a held-out seed.
        by_expert: the expert acts; otherwise the model.
        limit: control steps of a model's rollout at most.
        film: whether to take pictures.

    Raises:
        PlanFailure: the expert has no plan for the recipe.
        NotFinite: the model imagined a frame, or wanted a chunk, with a non-finite entry; nothing of it was executed.
        ValueError: the model does not fit.
    """
    observation = session.reset(recipe)
    plan = session.expert() if by_expert else None
    dreamer, tau = Dreamer(model, session.instruction), model.data.tau
    kinematics = PandaKinematics() if model.data.control == "eef" else None
    token_mask = encoder.token_mask(observation)
    seen: dict[str, list[np.ndarray]] = {"tokens": [], "imagined": [], "chunk": [], "rgb": []}
    actions: list[np.ndarray] = []
    pictures = [session.render_frame()] if film else []
    length = len(plan.action) + EXTRA_STEPS if plan is not None else limit
    held = 0
    while len(actions) < length and held < HOLD_STEPS:
        if encoder.needs_rgb:
            observation = session.observe(rgb=True)
            assert observation.rgb is not None
            seen["rgb"].append(observation.rgb)
        tokens = encoder.encode(observation)
        executed = np.stack(actions[-tau:]) if actions else None
        imagined, chunk = dreamer.look(tokens, token_mask, observation.proprio, executed)
        _check_finite(imagined, chunk, len(actions))
        for name, value in (("tokens", tokens), ("imagined", imagined), ("chunk", chunk)):
            seen[name].append(value.astype(np.float32))
        if plan is None and kinematics is not None:
            fill_joint_targets(chunk, observation.proprio, kinematics, tau)
        for i in range(tau):
            action = chunk[i] if plan is None else _of_plan(plan, len(actions))
            observation = session.step(action)
            actions.append(action.astype(np.float32))
            held = held + 1 if session.status().success else 0
            if film and len(actions) % VIDEO_EVERY == 0:
                pictures.append(session.render_frame())
    return Dream(
        instruction=session.instruction,
        by_expert=by_expert,
        success=session.status().success,
        tau=tau,
        token_mask=token_mask,
        action=np.stack(actions),
        rgb=np.stack(seen["rgb"]) if seen["rgb"] else None,
        film=pictures,
        **{name: np.stack(seen[name]) for name in ("tokens", "imagined", "chunk")},
    )


def _check_finite(imagined: np.ndarray, chunk: np.ndarray, step: int) -> None:
    for name, value in (("next frame that it imagines", imagined), ("chunk that it wants", chunk)):
        if not np.isfinite(value).all():
            raise NotFinite(f"the checkpoint ends the rollout at control step {step}: the {name} is not finite")


def _of_plan(plan: ExpertPlan, step: int) -> np.ndarray:
    return plan.action[min(step, len(plan.action) - 1)]


def figures_of(dream: Dream, model: Model) -> dict[str, float | str]:
    """How near the imagined frames and the chunks came.

    `frame`, `frame_copy`: root mean square in the model's normalised units, of the imagined next frame and of the
    present one taken for it: the world model earns something where the first is below the second. With pose tokens
    the same of positions, `position_mm` and `position_copy_mm`, mean distance over objects, goals and grippers.
    `chunk`: mean absolute error of the first tau actions against what was done, in `unit`; only where the expert acted.
    A rollout of one frame, of which nobody saw what came next, has none of the first four.
    """
    out: dict[str, float | str] = _foresight(dream, model) if len(dream.tokens) > 1 else {}
    if dream.by_expert:
        codec = model.preprocess.codec
        done = dream.action.reshape(len(dream.tokens), dream.tau, ACTION_DIM)
        error = codec.error(torch.from_numpy(dream.chunk[:, : dream.tau]), torch.from_numpy(done))
        valid = codec.error_valid(torch.ones(1, ACTION_DIM, dtype=torch.bool))[0]
        out |= {"chunk": float(error[..., valid].mean()), "unit": codec.unit}
    return out


def _foresight(dream: Dream, model: Model) -> dict[str, float | str]:
    """The errors of imagined frames; see `figures_of`."""
    normalise = model.preprocess.token.normalise
    scaled = [normalise(torch.from_numpy(array)).numpy() for array in (dream.imagined, dream.tokens)]
    imagined, true = (array[:, dream.token_mask] for array in scaled)
    out: dict[str, float | str] = {
        "frame": float(np.sqrt(np.square(imagined[:-1] - true[1:]).mean())),
        "frame_copy": float(np.sqrt(np.square(true[:-1] - true[1:]).mean())),
    }
    if dream.rgb is None:
        foreseen, seen = (places_of(array[:, dream.token_mask]) for array in (dream.imagined, dream.tokens))
        for name, guess in (("position_mm", foreseen), ("position_copy_mm", seen)):
            off = np.linalg.norm(guess.position[:-1] - seen.position[1:], axis=-1)
            out[name] = float(1000.0 * off.mean())
    return out
