"""Recipe -> episode, as one function that needs no Ray."""

from embodichain.rollout.episode import RolloutOptions, RolloutReport, make_episode
from embodichain.rollout.replay_check import ReplayDifference, compare_episodes

__all__ = ["ReplayDifference", "RolloutOptions", "RolloutReport", "compare_episodes", "make_episode"]
