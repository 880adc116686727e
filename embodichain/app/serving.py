"""Checkpoints as policy servers, and policy servers as what an evaluator scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from embodichain.app.config import ConfigError, EncoderConfig, RunConfig
from embodichain.contracts import Policy
from embodichain.serving.protocol import PolicyInfo, ProtocolError

if TYPE_CHECKING:
    from embodichain.encoders import Encoder
    from embodichain.evaluation.evaluator import EvaluatorParts
    from embodichain.evaluation.timing import Timing
    from learner.config import DataSpec
    from learner.runtime import RuntimeConfig
    from tasks.session import TaskSession


def served(
    config: RunConfig, checkpoint: str, runtime: RuntimeConfig, device: str = "cpu"
) -> tuple[PolicyInfo, Callable[[], Policy]]:
    """What a server says of a checkpoint, and a policy of it per session; the sessions share the weights, on `device`.

    Raises:
        ValueError: a folder that is no whole checkpoint, or one of another configuration, or a mode that its model
            cannot run in.
    """
    from embodichain.app.policies import ModelPolicy
    from embodichain.encoders.text import TextEncoder
    from learner.checkpoint import load_model

    model, text = load_model(checkpoint, device=device), TextEncoder()
    _check_data(config, model.data, checkpoint)
    replan = config.evaluation.replan

    def make() -> ModelPolicy:
        return ModelPolicy(model, replan=replan, runtime=runtime, whole_chunks=True, text=text, device=device)

    work, data = make().work, model.data
    info = PolicyInfo(
        name=f"{config.name}/{checkpoint.rstrip('/').rsplit('/', 1)[-1]}",
        replan=replan,
        chunk=data.chunk,
        mode=runtime.mode,
        whole=work.whole,
        ahead=work.ahead,
        blocking=work.blocking,
        tokens={
            "encoder_id": data.encoder_id,
            "shape": [data.tokens, data.channels],
            "settings": encoder_settings(config),
        },
    )
    return info, make


def check_checkpoint(config: RunConfig, checkpoint: str) -> None:
    """Whether the checkpoint is whole and that of this run, with this installation's encoder. Raises `ConfigError`."""
    from embodichain.app.components import make_encoder
    from learner.checkpoint import load_model

    try:
        _check_data(config, load_model(checkpoint, encoder_id=make_encoder(config).id).data, checkpoint)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_data(config: RunConfig, data: DataSpec, checkpoint: str) -> None:
    """The encoder is compared by its kind alone: where a policy is served its weights need not be."""
    pairs = {
        "encoder": (data.encoder_id.split("-")[0], config.encoder.name),
        "chunk": (data.chunk, config.window.chunk),
        "tau": (data.tau, config.window.tau),
        "control": (data.control, config.learner.control),
    }
    for key, (there, here) in pairs.items():
        if there != here:
            raise ValueError(
                f"checkpoint {checkpoint}: {key}={there}, config.yaml beside it says {here}; it is another run's"
            )


def encoder_settings(config: RunConfig) -> dict[str, Any]:
    """What `client_encoder` builds the run's encoder from."""
    if config.encoder.name == "state":
        from tasks.registry import slots

        return {"name": "state", **slots(config.active_tasks)}
    return config.encoder.tokens


def client_encoder(info: PolicyInfo, tasks: list[str]) -> Encoder:
    """The encoder of the tokens that a server's policy reads, or any for one that reads none.

    Raises:
        ConfigError: settings that no encoder of this installation has, or one that makes other tokens.
    """
    from embodichain.app.components import make_encoder
    from embodichain.encoders import StateEncoder
    from tasks.registry import slots

    if not info.encoder_id:
        return StateEncoder(**slots(tasks))
    settings = dict(info.tokens.get("settings") or {})
    name = settings.pop("name", None)
    try:
        encoder: Encoder
        if name == "state":
            encoder = StateEncoder(**settings)
        else:
            cameras = tuple(settings.pop("cameras", ()))
            encoder = make_encoder(RunConfig(encoder=EncoderConfig(name=str(name), cameras=cameras, **settings)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--server: encoder {info.encoder_id!r}, settings {name} {settings}: {error}") from error
    if encoder.id != info.encoder_id:
        raise ConfigError(
            f"--server: the policy was trained on encoder {info.encoder_id!r}, its settings make {encoder.id!r} here"
        )
    if name == "state":
        need = slots(tasks)
        if any(need[key] > settings.get(key, 1) for key in need):
            raise ConfigError(f"--tasks={' '.join(tasks)}: they need {need}, the server's policy sees {settings}")
    return encoder


def ask_server(url: str, token: str) -> PolicyInfo:
    """What the server there says of its policy. Raises `ConfigError` if there is none, or it does not let us in."""
    from embodichain.serving.client import RemotePolicy

    try:
        with RemotePolicy(url, token=token) as policy:
            return policy.info
    except ProtocolError as error:
        raise ConfigError(f"--server={url}: {error.code}: {error}") from error


def eyes(info: PolicyInfo) -> dict[str, Any]:
    """Cameras and sizes of the frames that the policy, or its encoder, asks for; empty for one that reads none."""
    asked = info.rgb or (info.tokens.get("settings") or {})
    return asked if "cameras" in asked else {}


def remote_session(info: PolicyInfo, *, render: bool) -> TaskSession:
    """A simulator with the cameras that the policy, or its encoder, asks for."""
    from envs import RenderConfig
    from tasks.session import TaskSession

    seen = eyes(info)
    if seen:
        render_config = RenderConfig(
            cameras=tuple(seen["cameras"]),
            width=int(seen["width"]),
            height=int(seen["height"]),
            supersample=int(seen.get("supersample", 1)),
        )
        return TaskSession(render=render_config)
    return TaskSession(render=RenderConfig() if render else None)


def build_remote_evaluator(
    config: RunConfig, render: bool, *, info: PolicyInfo, token: str, timing: Timing
) -> EvaluatorParts:
    """The inside of an evaluator whose policies are servers' addresses."""
    from embodichain.evaluation.evaluator import EvaluatorParts
    from embodichain.serving.client import RemotePolicy

    def no_heldout_error(checkpoint: str, batch: object) -> dict[str, Any]:
        raise RuntimeError(f"{checkpoint}: the held-out error of a server's policy is not known")

    return EvaluatorParts(
        session=remote_session(info, render=render),
        encoder=client_encoder(info, list(config.active_tasks)),
        load_policy=lambda url: RemotePolicy(url, token=token),
        heldout_error=no_heldout_error,
        timing=timing,
    )
