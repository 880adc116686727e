"""What the commands about a checkpoint share: finding it, and how its chunks are computed."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from embodichain.app.config import ConfigError, RunConfig, load_fit_config, load_made_config
from embodichain.app.config_checks import check_mode
from embodichain.app.folder import RunFolder
from embodichain.contracts import MODES, S_ACTION, S_VIDEO
from learner.checkpoint import list_checkpoints

TOKEN = "EMBODICHAIN_TOKEN"
MODE_KEYS = ("mode", "s_video", "s_action", "context_frames")


def find_checkpoint(checkpoint: str) -> tuple[RunFolder, int, RunConfig]:
    """The run's folder, the checkpoint's step and the run's configuration. Raises `ConfigError` if there is none."""
    path = Path(checkpoint).absolute()
    run, step = (path.parent.parent, path.name) if path.name.startswith("step_") else (path, "")
    if (run / "config.yaml").is_file():
        fitted = (run / "fit.yaml").is_file()
        config = (load_fit_config if fitted else load_made_config)(run / "config.yaml")
        folder = RunFolder(run, config.storage)
        there = list_checkpoints(str(folder.checkpoints))
        wanted = [n for n in there if not step or step == f"step_{n}"]
        if wanted:
            # Nobody learns from here on, and who scores encodes: what GPUs have made is scored where there are none.
            learner, encoder = replace(config.learner, gpu=False), replace(config.encoder, actors=0)
            return folder, wanted[-1], replace(config, learner=learner, encoder=encoder)
    raise ConfigError(f"checkpoint={checkpoint}: expected runs/<name> or runs/<name>/checkpoints/step_N of a run")


def add_mode_arguments(parser: argparse.ArgumentParser) -> None:
    """How chunks are computed: for `serve` and `evaluate`."""
    parser.add_argument("--mode", choices=MODES, help="when chunks are computed (default: the run's own, sync)")
    parser.add_argument(
        "--s-video",
        type=float,
        metavar="S",
        help=f"sai: flow time to which the video flow is integrated ahead (default: the run's own, {S_VIDEO})",
    )
    parser.add_argument("--s-action", type=float, metavar="S", help=f"sai: the same for the action flow ({S_ACTION})")
    parser.add_argument(
        "--context-frames",
        type=int,
        metavar="N",
        help="frames after which the memory starts anew, 0: never (default: as trained)",
    )


def with_mode(config: RunConfig, arguments: argparse.Namespace) -> RunConfig:
    """The configuration with what the command line says about modes. Raises `ConfigError` for an impossible one."""
    changes = {key: getattr(arguments, key) for key in MODE_KEYS if getattr(arguments, key, None) is not None}
    config = replace(config, evaluation=replace(config.evaluation, **changes))
    check_mode(config)
    return config
