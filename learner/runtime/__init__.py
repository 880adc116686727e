"""Models in closed loop: observe, imagine, act, in one go or begun on what was imagined."""

from learner.runtime.config import RuntimeConfig
from learner.runtime.policy import PolicyRuntime

__all__ = ["PolicyRuntime", "RuntimeConfig"]
