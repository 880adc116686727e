"""The policy runtime: observe, imagine, act, for one environment or many in lockstep; whole or begun ahead.

Owns the memory of each episode, the actions executed last, and the sampling noise. Takes encoded observations as NumPy
arrays, hands on chunks of absolute targets. The caller executes the first tau actions of a chunk, then asks again.

Speculative asynchronous inference (arXiv 2604.16484), in two calls. `speculate`, while the robot executes a chunk: the
imagined f^_t stands in for the coming observation; a fork of the long-term memory is written with it, and the flows of
the next frame and the next chunk are integrated from s = 0 to `s_video` and `s_action`. `step`, when the real o_t is
there: it is written into the long-term memory, which never saw the fork; the flows go from where they are to their
ends, in one step each, with the real context in place of the imagined one. The noise of a chunk is drawn in the same
order either way, so that with both times at 0, and with a perfect prediction where one step is all that was left, the
result is that of mode `sync`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from learner.batch import Frame
from learner.flow import FlowState
from learner.interface import StagedModel, WorldActionModel
from learner.runtime.config import RuntimeConfig, correction_steps

Substitute = Callable[[Tensor, Callable[[], Tensor]], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Begun:
    """Both flows of a chunk, somewhere between noise and data: [B, L C] and [B, N A_c]."""

    video: FlowState
    action: FlowState


class PolicyRuntime:
    """Runs a `WorldActionModel` closed loop; B episodes start and step together.

    Attributes:
        config: settings. `work`: what they mean in network passes.
        imagined: f32[B, L, C], what the model expected to see tau steps after the last `step`; None before the first
            and from a model that imagines nothing.
    """

    def __init__(
        self,
        model: WorldActionModel,
        config: RuntimeConfig | None = None,
        *,
        device: torch.device | str = "cpu",
        substitute: Substitute | None = None,
    ) -> None:
        """Args: the model, on `device` and in evaluation mode; `config`; for experiments `substitute`.

        `substitute` gets the imagined frame, and a function that returns the chunk f32[B, N, A] that the model would
        take with it; what it returns is shown to the action stage instead (None: the model's `missing` vector).

        Raises:
            ValueError: mode `sai` with a model that imagines nothing, or together with `substitute`.
        """
        self.config = config or RuntimeConfig()
        self.work = self.config.work(model.config.flow)
        # Mode sai alone takes the stages one by one, and models that have none are refused below.
        self._model, self._device = cast(StagedModel, model), torch.device(device)
        self._substitute = substitute
        if self.config.mode == "sai":
            kind, use = model.config.kind, model.config.condition.use
            if kind == "flow_policy" or not use:
                raise ValueError(
                    f"runtime.mode=sai: the model (kind={kind}, condition.use={use}) imagines no next frame to begin a "
                    "chunk on; expected mode sync or naive_async"
                )
            if substitute is not None:
                raise ValueError("runtime.mode=sai: expected mode sync where the imagined frame is substituted")
        self._rng = torch.Generator(device=self._device)
        self._memory: Any = None
        self._still: tuple[Tensor, Tensor] | None = None
        self._executed: Tensor | None = None
        self._chunk: Tensor | None = None
        self._seen: tuple[Frame, FlowState] | None = None
        self._begun: Begun | None = None
        self.imagined: np.ndarray | None = None

    def reset(self, text: np.ndarray, action_valid: np.ndarray) -> None:
        """Begin B episodes: memory and noise start anew, so an episode's actions do not depend on earlier ones.

        Args:
            text: f32[B, D_text], embedded instructions.
            action_valid: bool[A] or bool[B, A], which action dims the embodiment has.

        Raises:
            ValueError: for a text embedding of the wrong length.
        """
        data = self._model.data
        if text.ndim != 2 or text.shape[1] != data.text_dim:
            raise ValueError(f"text: shape {list(text.shape)}, expected [B, {data.text_dim}]")
        b = text.shape[0]
        valid = np.broadcast_to(action_valid, (b, action_valid.shape[-1])).copy()
        self._still = self._tensor(text, np.float32), self._tensor(valid, np.bool_)
        self._memory = self._model.initial_memory(b, self.config.context_frames)
        self._executed, self._chunk, self._seen, self._begun, self.imagined = None, None, None, None, None
        self._rng.manual_seed(self.config.seed)

    @torch.inference_mode()
    def step(
        self, tokens: np.ndarray, token_mask: np.ndarray, proprio: np.ndarray, executed: np.ndarray | None = None
    ) -> np.ndarray:
        """The next chunk of each episode; `imagined` then holds what the model expects to see tau steps on.

        Args:
            tokens: [B, L, C], encoded observations.
            token_mask: bool[L] or bool[B, L], tokens that exist.
            proprio: f32[B, P].
            executed: f32[B, n, A], actions executed since the last step, absolute; None: the first tau of its chunk.

        Returns:
            f32[B, N, A], absolute targets in the unified layout, zero in dims that are not executed.

        Raises:
            ValueError: before `reset`, or for shapes that do not fit the model.
        """
        frame = self._frame(tokens, token_mask, proprio)
        past = self._chunk if executed is None else self._tensor(executed, np.float32)
        self._executed = self._last(self._executed, past)
        self._memory = self._observe(self._memory, frame, self._executed)
        chunk, imagined = self._finish(frame) if self.config.mode == "sai" else self._whole(frame)
        self._chunk = chunk[:, : self._model.data.tau]
        self.imagined = None if imagined is None else imagined.cpu().numpy()
        return chunk.float().cpu().numpy()

    @torch.inference_mode()
    def speculate(self, planned: np.ndarray, posture: np.ndarray) -> None:
        """Begin the next chunk as if `planned` had been executed and had led to `posture` and to what was imagined.

        The stand-in for the coming observation has the imagined frame's tokens. The long-term memory is read and
        forked, not changed.

        Args:
            planned: f32[B, n, A], n >= 1 actions that will be executed before the next `step`, absolute.
            posture: f32[B, P], the proprioception that they are expected to lead to.

        Raises:
            ValueError: in another mode than `sai`, or before the first `step`.
        """
        if self.config.mode != "sai" or self._seen is None:
            raise ValueError(
                f"policy.speculate in mode {self.config.mode} with {'a' if self._seen else 'no'} step before it: "
                "expected mode sai, and a step since the reset whose imagination can stand in"
            )
        model, flow = self._model, self._model.config.flow
        before, video = self._seen
        plan = self._tensor(planned, np.float32)
        s_video, s_action = self.config.video_ahead(flow), self.config.action_ahead(flow)
        self._begun = self._noise(before)
        if not (s_video or s_action):
            return
        whole = video if video.s >= 1.0 else model.denoise_frame(self._memory, before, video, stop=1.0)
        there = self._tensor(posture, np.float32)
        stand_in = replace(before, tokens=model.frame_of(whole, before), proprio=there)
        memory = self._observe(self._memory, stand_in, self._last(self._executed, plan))
        self._begun = self._ahead(memory, stand_in, self._begun, s_video, s_action)

    def _ahead(self, memory: Any, stand_in: Frame, begun: Begun, s_video: float, s_action: float) -> Begun:
        """Phase 1: the flows from noise to `s_video` and `s_action`, on the imagined present."""
        model = self._model
        video = model.denoise_frame(memory, stand_in, begun.video, stop=s_video) if s_video else begun.video
        action = begun.action
        if s_action:
            shown = model.frame_of(model.denoise_frame(memory, stand_in, video), stand_in)
            action = model.denoise_actions(memory, stand_in, shown, action, stop=s_action)
        return Begun(video=video, action=action)

    def _finish(self, frame: Frame) -> tuple[Tensor, Tensor]:
        """Phase 2: the flows from where they are to their end, on the real present."""
        model, begun = self._model, self._begun or self._noise(frame)
        self._begun = None
        video, action = begun.video, begun.action
        if video.s < model.config.flow.video_stop:
            video = model.denoise_frame(self._memory, frame, video, steps=correction_steps(video.s))
        imagined = model.frame_of(video, frame)
        if action.s < 1.0:
            action = model.denoise_actions(self._memory, frame, imagined, action, steps=correction_steps(action.s))
        self._seen = frame, video
        return model.chunk_of(action, frame), imagined

    def _whole(self, frame: Frame) -> tuple[Tensor, Tensor | None]:
        """Both stages in one go."""
        model, rng = self._model, self._rng
        imagined = model.imagine(self._memory, frame, rng) if model.config.condition.use else None
        shown = imagined
        if imagined is not None and self._substitute is not None:
            state = rng.get_state()
            shown = self._substitute(imagined, lambda: model.act(self._memory, frame, imagined, rng))
            rng.set_state(state)
        return model.act(self._memory, frame, shown, rng), imagined

    def _noise(self, frame: Frame) -> Begun:
        return Begun(video=self._model.frame_noise(frame, self._rng), action=self._model.chunk_noise(frame, self._rng))

    def _observe(self, memory: Any, frame: Frame, executed: Tensor | None) -> Any:
        b, data = len(frame.tokens), self._model.data
        known = torch.full((b,), executed is not None, device=self._device)
        if executed is None:
            executed = torch.zeros(b, data.tau, frame.action_valid.shape[-1], device=self._device)
        return self._model.observe(memory, frame, executed, known)

    def _last(self, before: Tensor | None, new: Tensor | None) -> Tensor | None:
        """The last tau executed actions [B, tau, A]; where fewer are known, the first stands for those before it."""
        known = [part for part in (before, new) if part is not None and part.shape[1]]
        if not known:
            return None
        tau = self._model.data.tau
        actions = torch.cat(known, dim=1)[:, -tau:]
        missing = tau - actions.shape[1]
        return torch.cat((actions[:, :1].expand(-1, missing, -1), actions), dim=1) if missing else actions

    def _frame(self, tokens: np.ndarray, token_mask: np.ndarray, proprio: np.ndarray) -> Frame:
        if self._still is None:
            raise ValueError("policy.step before policy.reset: expected reset(text, action_valid) first")
        text, valid = self._still
        mask = np.broadcast_to(token_mask, (len(text), token_mask.shape[-1])).copy()
        return Frame(
            tokens=self._tensor(tokens, np.float32),
            token_mask=self._tensor(mask, np.bool_),
            proprio=self._tensor(proprio, np.float32),
            text=text,
            action_valid=valid,
        )

    def _tensor(self, array: np.ndarray, dtype: type) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)).to(self._device)
