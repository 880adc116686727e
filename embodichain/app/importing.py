"""A LeRobot dataset to an archive, its frames to tokens on the way: what `embodichain archive import` does.

Takes a dataset and an image encoder's settings, hands on an archive that says what it was made with, as a run's does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from embodichain.app.config import EncoderConfig
from embodichain.app.settings import ConfigError
from embodichain.archive import Archive, ArchiveWriter
from embodichain.contracts import WindowSpec

if TYPE_CHECKING:
    from embodichain.export import LeRobotReader


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What the tokens are made with; both mean what they mean in a run.

    Attributes:
        encoder: for images; `cameras` are those of the dataset, their frames are stretched to `width`, `height`.
        window: of it `tau`, the rows between frames.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    window: WindowSpec = field(default_factory=WindowSpec)

    def __post_init__(self) -> None:
        if self.encoder.name == "state":
            raise ConfigError(
                "encoder.name=state: its tokens are made from the simulator's state, which a dataset does not hold; "
                "expected dinov3"
            )


def open_dataset(path: str, config: ImportConfig, mapping: str | None = None) -> LeRobotReader:
    """A dataset as the encoder will see it; `mapping` is a YAML file as in docs/lerobot.md. Raises `ConfigError`."""
    from embodichain.export import FeatureMap, LeRobotReader

    encoder = config.encoder
    try:
        features = FeatureMap.from_config(_mapping(mapping)) if mapping else FeatureMap()
        if features.cameras not in ((), encoder.cameras):
            raise ConfigError(f"mapping.cameras={list(features.cameras)}: expected those of encoder.cameras, or none")
        features = replace(features, cameras=encoder.cameras)
        dataset = LeRobotReader(path, tau=config.window.tau, size=(encoder.height, encoder.width), mapping=features)
    except ConfigError:
        raise
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error
    if dataset.control_hz not in (None, dataset.fps):
        raise ConfigError(
            f"{path}: {dataset.fps:g} rows a second of episodes at {dataset.control_hz:g} Hz, whose recipes would name "
            "others; expected an export without --fps"
        )
    return dataset


def _mapping(file: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--mapping {file}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--mapping {file}: expected action, and maybe state, action_key, state_key")
    return content


def made_with(dataset: LeRobotReader, config: ImportConfig) -> dict[str, Any]:
    """As `RunConfig.made_with`; the domain is left out where episodes are not the simulator's, or of several."""
    recipes = [dataset.recipe(index) for index in range(len(dataset))]
    domains = {recipe.domain for recipe in recipes} if dataset.own else set()
    return {
        "tasks": sorted({recipe.task for recipe in recipes}),
        **({"domain": domains.pop()} if len(domains) == 1 else {}),
        "tau": config.window.tau,
        "encoder": config.encoder.tokens,
    }


def import_episodes(
    dataset: LeRobotReader, target: Archive, encoder: object, on_episode: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Encode every episode into shard 0 of `target`; what is there already is not encoded again.

    Args:
        dataset: with frames.
        target: an `arrays` archive.
        encoder: reads images.
        on_episode: told after each one.

    Returns:
        Counts: `imported`, `there` already.

    Raises:
        ValueError: the dataset is damaged, naming the file.
        OSError: the archive cannot be written.
    """
    from embodichain.export import encoded

    counts = {"imported": 0, "there": 0}
    known = {entry.id for entry in target.entries()}
    with ArchiveWriter(target, 0) as writer:
        for index in range(len(dataset)):
            if dataset.recipe(index).id in known:
                counts["there"] += 1
            else:
                writer.append(next(encoded([dataset.episode(index)], encoder)))
                counts["imported"] += 1
            on_episode()
    return counts
