"""Recipe -> episode, as one function that needs no Ray."""

from embodichain.rollout.episode import HOLD_STEPS, RolloutOptions, RolloutReport, make_episode
from embodichain.rollout.replay_check import ReplayDifference, compare_episodes

__all__ = ["HOLD_STEPS", "ReplayDifference", "RolloutOptions", "RolloutReport", "compare_episodes", "make_episode"]
