"""What the settings of a run cannot know of each other: combinations that cannot work, told before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embodichain.app.archive_checks import check_archives
from embodichain.app.settings import ConfigError, check_writable

if TYPE_CHECKING:
    from embodichain.app.config import EncoderConfig, RunConfig
    from learner.config import ModelConfig


def check_combinations(config: RunConfig) -> None:
    """What one field alone cannot know. Raises `ConfigError`."""
    from embodichain.app.config import recipe_stream
    from tasks.domain import parse_domain
    from tasks.registry import task_info, task_names

    unknown = sorted(set(config.tasks) - set(task_names()))
    if unknown:
        raise ConfigError(f"tasks.{unknown[0]}: unknown task; expected some of {', '.join(task_names())}")
    if not config.active_tasks or min(config.tasks.values()) < 0:
        raise ConfigError(
            f"tasks={dict(config.tasks)}: expected at least one task with a positive share, none negative"
        )
    try:
        recipe_stream(config, sim_hash="")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for domain in config.evaluation.domains:
        try:
            parse_domain(domain)
        except ValueError as error:
            raise ConfigError(f"evaluation.domains={domain}: {error}") from error
    _check_replay(config)
    longest = max(task_info(name).horizon for name in config.active_tasks)
    span = config.window.seen * config.window.tau
    if span > longest:
        raise ConfigError(
            f"window.frames={config.window.frames}: a window of {span} control steps is longer than any episode "
            f"(at most {longest}); expected (burn_in + frames) * tau <= {longest}"
        )
    if config.evaluation.replan > config.window.chunk:
        raise ConfigError(
            f"evaluation.replan={config.evaluation.replan}: expected at most window.chunk={config.window.chunk}"
        )
    if config.encoder.name == "dinov3" and config.window.phase_step % config.window.tau:
        raise ConfigError(
            f"window.phase_step={config.window.phase_step}: image tokens exist only every tau={config.window.tau} "
            "control steps; expected a multiple of window.tau"
        )
    check_mode(config)
    _check_cameras(config.encoder)
    _check_groups(config)


def check_places(config: RunConfig) -> None:
    """Where a run reads from and writes to. Raises `ConfigError`."""
    check_archives(config)
    check_writable("output", config.output)


def check_mode(config: RunConfig) -> None:
    """Whether the run's model can run in the evaluation's mode. Raises `ConfigError`."""
    settings, network = config.evaluation, config.learner.network
    if settings.mode != "sai":
        return
    if network.kind == "flow_policy" or not network.condition.use:
        raise ConfigError(
            f"evaluation.mode=sai: learner.network.kind={network.kind} with condition.use={network.condition.use} "
            "imagines no frame to begin a chunk on; expected sync or naive_async"
        )
    if settings.replan != config.window.tau:
        raise ConfigError(
            f"evaluation.mode=sai with evaluation.replan={settings.replan}: the imagined frame lies window.tau="
            f"{config.window.tau} steps ahead and stands in for the observation after replan; expected them equal"
        )


def _check_cameras(encoder: EncoderConfig) -> None:
    """Cameras that the world has, each once: a checkpoint knows them by their places."""
    from envs.appearance import camera_views

    known = sorted(camera_views())
    if not encoder.cameras or set(encoder.cameras) - set(known) or len(set(encoder.cameras)) < len(encoder.cameras):
        raise ConfigError(f"encoder.cameras={list(encoder.cameras)}: expected some of {', '.join(known)}, each once")


def _check_groups(config: RunConfig) -> None:
    """Image patches that make up groups: known before anything starts."""
    encoder, network = config.encoder, config.learner.network
    if encoder.name != "dinov3" or network.frame_mode != "grouped":
        return
    from embodichain.encoders.weights import PATCH

    patches = len(encoder.cameras) * (encoder.height // PATCH) * (encoder.width // PATCH)
    if patches % network.frame_tokens:
        raise ConfigError(
            f"learner.network.frame_tokens={network.frame_tokens}: expected a divisor of the {patches} patches that "
            f"{len(encoder.cameras)} cameras have together"
        )


def check_components(network: ModelConfig, channels: int) -> None:
    """What is known once the encoder's tokens are. Raises `ConfigError`."""
    if network.components > channels:
        raise ConfigError(
            f"learner.network.components={network.components}: expected at most {channels}, the channels that this "
            "encoder's tokens have"
        )


def _check_replay(config: RunConfig) -> None:
    """What the replay can only know together with the windows and the learner's step."""
    if config.replay.step_windows not in (None, config.learner.batch_windows):
        raise ConfigError(
            f"replay.step_windows={config.replay.step_windows}: expected null, or learner.batch_windows="
            f"{config.learner.batch_windows}"
        )
    try:
        config.sharded_replay.share(config.window)
    except ValueError as error:
        raise ConfigError(str(error)) from error
