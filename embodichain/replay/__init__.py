"""The replay: episodes in, windows out, and a bound on reuse that holds by construction.

This package's plain core. What needs Ray is imported by its module: `replay.shard`, `replay.client`, `replay.writer`.
"""

from embodichain.replay.accounting import ReplayStats, TaskCount
from embodichain.replay.config import ReplayConfig
from embodichain.replay.fakes import fake_episode
from embodichain.replay.gather import concatenate, cut
from embodichain.replay.ledger import PassLedger
from embodichain.replay.limiter import MinSize, RateLimiter, SampleToInsertRatio
from embodichain.replay.routing import route
from embodichain.replay.store import AppendStatus, SampleReply, ShardStore

__all__ = [
    "AppendStatus",
    "MinSize",
    "PassLedger",
    "RateLimiter",
    "ReplayConfig",
    "ReplayStats",
    "SampleReply",
    "SampleToInsertRatio",
    "ShardStore",
    "TaskCount",
    "concatenate",
    "cut",
    "fake_episode",
    "route",
]
