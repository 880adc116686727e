"""Factories: from a run's configuration to the parts that live in other processes.

Every function here is shipped to an actor and runs there, so simulators, encoders and learners are
imported inside, never in the driver.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ray

from embodichain.actors.reader import without_states
from embodichain.app.config import EncoderConfig, RunConfig

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from embodichain.actors.reader import ArchiveReader
    from embodichain.actors.worker import SimWorker
    from embodichain.contracts import Episode
    from embodichain.encoders import Encoder
    from embodichain.encoders.dinov3 import DINOv3Encoder
    from embodichain.evaluation.evaluator import EvaluatorParts
    from embodichain.evaluation.timing import Timing
    from learner.runtime import RuntimeConfig
    from tasks.session import TaskSession


def make_encoder(config: RunConfig) -> Encoder:
    """The run's encoder. Raises `ValueError` for weights that cannot be loaded."""
    if config.encoder.name == "state":
        from embodichain.encoders import StateEncoder
        from tasks.registry import slots

        return StateEncoder(**slots(config.active_tasks))
    return image_encoder(config.encoder)


def image_encoder(config: EncoderConfig) -> DINOv3Encoder:
    """The encoder of a configuration that names `dinov3`. Raises `ValueError` for weights that cannot be loaded."""
    import torch

    from embodichain.encoders.dinov3 import DINOv3Encoder

    return DINOv3Encoder(
        weights=config.weights,
        views=len(config.cameras),
        height=config.height,
        width=config.width,
        device="cuda" if config.gpu and torch.cuda.is_available() else "cpu",
    )


def make_session(config: RunConfig, *, render: bool) -> TaskSession:
    """A simulator; with a renderer for an image encoder, or where `render` asks for one."""
    from envs import RenderConfig
    from tasks.session import TaskSession

    if not render and config.encoder.name == "state":
        return TaskSession(render=None)
    seen = config.encoder
    return TaskSession(
        render=RenderConfig(cameras=seen.cameras, width=seen.width, height=seen.height, supersample=seen.supersample)
    )


def append_to(shards: list[ActorHandle]) -> Callable[[Episode], bool]:
    """A function that hands an episode to its shard; False while that shard holds it back or restarts.

    Simulator states and frames stay behind: windows are cut without them, and the recipe brings them back.
    """
    from embodichain.replay.writer import ReplayWriter

    writer = ReplayWriter(shards)

    def append(episode: Episode) -> bool:
        return not writer.append([without_states(episode)], timeout_s=2.0).retry

    return append


def build_worker(
    config: RunConfig, shards: list[ActorHandle], recorder: ActorHandle, encoders: Sequence[ActorHandle]
) -> SimWorker:
    """The inside of one simulation actor."""
    import torch

    from embodichain.actors.flight import RemoteMarks
    from embodichain.actors.worker import SimWorker
    from embodichain.rollout import RolloutOptions

    torch.set_num_threads(1)
    return SimWorker(
        make_session(config, render=False),
        _encoder_of(config, encoders),
        RolloutOptions(tau=config.window.tau),
        append_to(shards),
        config.actors.replay_fraction,
        RemoteMarks(recorder),
    )


def _encoder_of(config: RunConfig, encoders: Sequence[ActorHandle]) -> Encoder:
    """A simulator's encoder: one of the shared ones, if there are any."""
    if not encoders:
        return make_encoder(config)
    from embodichain.actors.encoding import RemoteEncoder

    return RemoteEncoder(encoders, first=os.getpid())


def build_reader(config: RunConfig, shards: list[ActorHandle]) -> ArchiveReader:
    """The inside of one process that reads episodes from the run's source archive."""
    from embodichain.actors.reader import ArchiveReader
    from embodichain.archive import Archive
    from embodichain.replay.writer import ReplayWriter

    return ArchiveReader(Archive.open(config.source_archive), ReplayWriter(shards))


def runtime_config(config: RunConfig) -> RuntimeConfig:
    """How the run's checkpoints compute their chunks."""
    from learner.runtime import RuntimeConfig

    settings = config.evaluation
    return RuntimeConfig(
        mode=settings.mode,
        s_video=settings.s_video,
        s_action=settings.s_action,
        context_frames=settings.context_frames,
    )


def evaluation_timing(config: RunConfig) -> Timing:
    """When the run's evaluators have chunks computed and played."""
    from embodichain.evaluation.timing import Timing

    return Timing(mode=config.evaluation.mode, latency_steps=config.evaluation.latency_steps)


def build_evaluator(config: RunConfig, render: bool) -> EvaluatorParts:
    """The inside of one evaluator."""
    import torch

    from embodichain.app.policies import checkpoint_heldout_error, load_policy
    from embodichain.evaluation.evaluator import EvaluatorParts

    torch.set_num_threads(1)
    return EvaluatorParts(
        session=make_session(config, render=render),
        encoder=make_encoder(config),
        load_policy=partial(load_policy, replan=config.evaluation.replan, runtime=runtime_config(config)),
        heldout_error=checkpoint_heldout_error,
        timing=evaluation_timing(config),
    )


def start_sim_actor(
    config: RunConfig, shards: list[ActorHandle], recorder: ActorHandle, encoders: Sequence[ActorHandle] = ()
) -> Any:
    """One process of the pool: it simulates, or reads from the archive that episodes come from."""
    from embodichain.actors.worker import CALLS_AT_ONCE, SimActor

    actor = ray.remote(num_cpus=config.actors.cpus, max_restarts=0)(SimActor)
    simulate, read = partial(build_worker, config, shards, recorder, encoders), partial(build_reader, config, shards)
    build = read if config.source_archive else simulate
    return actor.options(max_concurrency=CALLS_AT_ONCE, label_selector=config.placement.simulators).remote(
        build, config.actors.niceness
    )


def start_encoders(config: RunConfig) -> list[Any]:
    """The `EncodingActor`s that the simulators share; none where each encodes for itself."""
    from embodichain.actors.encoding import EncodingActor

    remote: Any = ray.remote(num_cpus=config.encoder.cpus, num_gpus=int(config.encoder.gpu), max_restarts=-1)
    actor = remote(EncodingActor).options(label_selector=config.placement.encoders)
    return [actor.remote(partial(make_encoder, config)) for _ in range(config.encoder.actors)]


def start_evaluator(
    config: RunConfig, render: bool, build: Callable[[RunConfig, bool], EvaluatorParts] = build_evaluator
) -> Any:
    """One `EvaluatorActor`; `build` makes its inside, there."""
    from embodichain.evaluation.evaluator import EvaluatorActor

    actor = ray.remote(num_cpus=config.evaluation.cpus, max_restarts=0)(EvaluatorActor)
    return actor.options(label_selector=config.placement.evaluators).remote(
        partial(build, config, render), config.evaluation.niceness
    )
