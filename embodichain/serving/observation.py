"""What a policy sees, as it travels: only what the policy says that it reads; checked on arrival."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodichain.contracts import ACTION_DIM, Observation, PolicyInput
from embodichain.serving.protocol import BAD_OBSERVATION, PolicyInfo, ProtocolError

# name -> shape after its first axis
POSES = {"object_pose": (7,), "object_size": (3,), "object_grasp": (2, 3), "goal_pose": (7,), "goal_size": (3,)}


def to_wire(seen: PolicyInput, info: PolicyInfo) -> dict[str, np.ndarray]:
    """The parts of `seen` that the policy reads. Raises `ProtocolError` if one is missing."""
    observation = seen.observation
    parts: dict[str, Any] = {"proprio": observation.proprio, "executed": seen.executed}
    if info.encoder_id:
        parts |= {"tokens": seen.tokens, "token_mask": seen.token_mask}
    if info.rgb:
        parts["rgb"] = observation.rgb
    if info.poses:
        parts |= {name: getattr(observation, name) for name in (*POSES, "tool_pose")}
    missing = [name for name, value in parts.items() if value is None]
    if missing:
        raise ProtocolError(BAD_OBSERVATION, f"observation.{missing[0]}: none given, the policy {info.name} reads it")
    return parts


def from_wire(parts: Any, info: PolicyInfo) -> PolicyInput:
    """Inverse of `to_wire`.

    Raises:
        ProtocolError: `bad_observation`, naming the entry that is missing, of the wrong type or shape, or not finite.
    """
    if not isinstance(parts, dict):
        raise ProtocolError(BAD_OBSERVATION, f"observation: a {type(parts).__name__}, expected a map")
    read = _Reader(parts)
    proprio = read.floats("proprio", (ACTION_DIM,))
    executed = read.floats("executed", (None, ACTION_DIM))
    tokens = token_mask = rgb = None
    if info.encoder_id:
        count, channels = (int(n) for n in info.tokens["shape"])
        tokens, token_mask = read.floats("tokens", (count, channels)), read.array("token_mask", (count,), "bool")
    if info.rgb:
        shape = (len(info.rgb["cameras"]), int(info.rgb["height"]), int(info.rgb["width"]), 3)
        rgb = read.array("rgb", shape, "uint8")
    poses = {
        name: read.floats(name, (None, *rest)) if info.poses else np.zeros((0, *rest), np.float32)
        for name, rest in POSES.items()
    }
    tools = read.floats("tool_pose", (2, 7)) if info.poses else np.zeros((2, 7), np.float32)
    observation = Observation(proprio=proprio, tool_pose=tools, rgb=rgb, **poses)
    return PolicyInput(observation=observation, executed=executed, tokens=tokens, token_mask=token_mask)


class _Reader:
    def __init__(self, parts: dict[str, Any]) -> None:
        self._parts = parts

    def array(self, name: str, shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
        """An entry of exactly this dtype; None in `shape` fits any length."""
        value = self._parts.get(name)
        if not isinstance(value, np.ndarray):
            what = "missing" if value is None else f"a {type(value).__name__}"
            raise ProtocolError(BAD_OBSERVATION, f"observation.{name}: {what}, expected an array")
        if value.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True)):
            expected = [("n" if n is None else n) for n in shape]
            raise ProtocolError(
                BAD_OBSERVATION, f"observation.{name}: shape {list(value.shape)}, expected {_brackets(expected)}"
            )
        kind = "float" if dtype == "float" and value.dtype.kind == "f" else value.dtype.name
        if kind != dtype:
            raise ProtocolError(BAD_OBSERVATION, f"observation.{name}: dtype {value.dtype}, expected {dtype}")
        return value

    def floats(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """An entry of finite numbers, as f32; what is too large for that is not finite."""
        with np.errstate(over="ignore"):
            value = self.array(name, shape, "float").astype(np.float32)
        bad = int(np.count_nonzero(~np.isfinite(value)))
        if bad:
            raise ProtocolError(
                BAD_OBSERVATION,
                f"observation.{name}: {bad} of {value.size} numbers are not finite as float32, expected none",
            )
        return value


def _brackets(shape: list[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"
