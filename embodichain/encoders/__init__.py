"""Encoders: observation -> tokens. None of them imports a simulator, Ray or MLflow."""

from embodichain.encoders.base import Encoder, FrameByFrame
from embodichain.encoders.state import StateEncoder

__all__ = ["Encoder", "FrameByFrame", "StateEncoder"]
