"""`embodichain encoder train`: distil a small image encoder and its decoder from the simulator's own frames."""

from __future__ import annotations

import argparse
import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodichain.app.settings import ConfigError, check_writable, device_for, merged, save_config

if TYPE_CHECKING:
    from embodichain.app.encoder_training import EncoderTraining

EXAMPLES = """\
examples:
  embodichain encoder train                                the recipe of the weights in this package
  embodichain encoder train --output runs/big frames=40000 distill.depth=12 distill.steps=20000
  embodichain run configs/vision.yaml encoder.weights=runs/big/weights

The same command on the same folder goes on where it stopped; only distill.steps and threads may differ then.
docs/encoder.md is the card of the weights in this package."""


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `encoder`."""
    encoder = commands.add_parser("encoder", help="the image encoder: distil one from the simulator's frames")
    names = encoder.add_subparsers(dest="name", metavar="NAME", required=True)
    train = names.add_parser(
        "train",
        help="frames, self-distillation, decoder; resumable",
        description="Distil a small DINOv3 from frames of the simulator, and teach a decoder to draw its tokens.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the recipe")
    train.add_argument("--output", default="runs/encoder", metavar="DIR", help="default runs/encoder")
    train.add_argument("--json", action="store_true", help="print what was made as JSON, nothing else")
    train.set_defaults(handler=_train)


def _train(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from embodichain.app.encoder_training import EncoderTraining, train_encoder
    from embodichain.app.filming import need_renderer

    folder = Path(arguments.output).absolute()
    config = merged(EncoderTraining, None, arguments.overrides)
    check_writable("--output", str(folder))
    device_for(config.gpu, "gpu=true")
    if (folder / "made.json").exists():
        raise ConfigError(f"--output {arguments.output}: an encoder was made there; expected another folder")
    _check_same(config, folder / "train.yaml")
    need_renderer("encoder train")
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "train.yaml")
    stopping: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda *_: stopping.append(1))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True), disable=arguments.json) as progress:
            bar = progress.add_task("frames", total=config.frames)

            def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
                said = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
                progress.update(bar, completed=done, total=total, description=f"{stage}  {said}")

            made = train_encoder(config, folder, report, lambda: bool(stopping))
    finally:
        signal.signal(signal.SIGINT, previous)
    _show(made, folder, as_json=arguments.json)
    return 0


def _check_same(config: EncoderTraining, path: Path) -> None:
    """A folder that was begun goes on with its own recipe. Raises `ConfigError`."""
    from embodichain.app.encoder_training import EncoderTraining

    if not path.exists():
        return
    begun = merged(EncoderTraining, path, [])
    may = replace(config, threads=begun.threads, distill=replace(config.distill, steps=begun.distill.steps))
    before, now = asdict(begun), asdict(may)
    for key in now:
        if now[key] != before[key]:
            raise ConfigError(
                f"{path}: {key}={before[key]}, this run wants {now[key]}; only distill.steps and threads may differ, "
                "expected another folder"
            )


def _show(made: dict[str, Any] | None, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(made))
        return
    where = os.path.relpath(folder)
    if made is None:
        print(f"stopped; the same command goes on. {where}/weights, if it is there, is the encoder so far")
        return
    print(f"{made['encoder_id']}: {made['frames']} frames of {made['episodes']} episodes")
    for stage, cost in made["cost"].items():
        print(f"  {stage:<10} {cost['cpu_s']:8.0f} s of processor time, {cost['wall_s']:8.0f} s in all")
    print(f"use it with:  encoder.weights={where}/weights")
