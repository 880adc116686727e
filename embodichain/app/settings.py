"""How settings are read: typed defaults, a YAML file and `key=value` overrides become one frozen object.

And what every command does before it begins: places that can be written, devices that are there. Imports no Ray.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

S = TypeVar("S")


class ConfigError(ValueError):
    """Something the user got wrong; the message is one line, and nothing was created."""


def merged(schema: type[S], path: str | Path | None, overrides: Sequence[str], *, without: Collection[str] = ()) -> S:
    """Defaults, YAML file (`without` some of its keys) and overrides as an object of the dataclass `schema`.

    Raises:
        ConfigError: an unreadable file, an unknown key, a wrong type, a value that the dataclass refuses.
    """
    layers: list[Any] = [OmegaConf.structured(schema)]
    if path is not None:
        layers.append(_of_file(path, without))
    layers.append(_of_overrides(overrides))
    try:
        layers = [_sized(layer, layers[:number]) for number, layer in enumerate(layers)]
        whole = OmegaConf.merge(*layers)
        _check_finite(OmegaConf.to_container(whole))
        config = OmegaConf.to_object(whole)
    except OmegaConfBaseException as error:
        raise ConfigError(_one_line(error, schema)) from error
    except TypeError as error:  # a list where there are keys
        raise ConfigError(
            f"config={path}, {' '.join(overrides)}: a list stands where keys are expected ({error})"
        ) from error
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(full_keys(str(error))) from error
    assert isinstance(config, schema)
    return config


def _of_file(path: str | Path, without: Collection[str]) -> DictConfig:
    if not Path(path).is_file():
        raise ConfigError(f"config={path}: no such file; expected a YAML file such as configs/quickstart.yaml")
    try:
        layer = OmegaConf.create(Path(path).read_text() or "{}")
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(f"config={path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(layer, DictConfig):
        raise ConfigError(f"config={path}: expected a mapping of keys, as in configs/quickstart.yaml")
    for key in set(without) & set(layer):
        del layer[key]
    return layer


def _of_overrides(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override {override!r}: expected key=value")
        try:
            OmegaConf.from_dotlist([override])
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"override {override!r}: not valid YAML ({' '.join(str(error).split())})") from error
    return OmegaConf.from_dotlist(list(overrides))


def _check_finite(value: object, key: str = "") -> None:
    """No setting is without an end, and comparisons with what is no number are false. Raises `ConfigError`."""
    inside: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for name, part in inside:
        _check_finite(part, f"{key}.{name}" if key else str(name))
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}: expected a finite number")


_PRESET = "learner.network.preset"
_SIZE_KEYS = ("width", "depth", "heads", "expand", "frame_tokens", "action_tokens")


def _sized(layer: Any, before: Sequence[Any]) -> Any:
    """A layer of settings with the model size that it names spelt out, under its own keys and over those `before`.

    Raises:
        ValueError: for an unknown size.
    """
    name = OmegaConf.select(layer, _PRESET, default=None) if isinstance(layer, DictConfig) else None
    if name is None:
        return layer
    from learner.config import preset

    tree: Any = OmegaConf.to_container(layer)
    del tree["learner"]["network"]["preset"]
    rest = OmegaConf.create(tree)
    kinds = [OmegaConf.select(each, "learner.network.kind", default=None) for each in (*before, rest)]
    size = preset(str(name), next((kind for kind in reversed(kinds) if kind), "clwm"))
    memory = {"layers": list(size.memory.layers), "dim": size.memory.dim}
    network = {**{key: getattr(size, key) for key in _SIZE_KEYS}, "memory": memory}
    return OmegaConf.merge({"learner": {"network": network}}, rest)


def config_and_overrides(path: str | None, overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """A YAML file that may be left out, and the overrides: the command line takes the first of them for the file."""
    return (None, [path, *overrides]) if path is not None and "=" in path else (path, list(overrides))


def save_config(config: object, path: Path) -> None:
    """Write the resolved configuration as YAML; `merged` reads it back to an equal object."""
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


# The learner's settings do not know where in a run's configuration they stand.
_LEARNER_SECTIONS = {
    "model": "learner.network",
    "flow": "learner.network.flow",
    "memory": "learner.network.memory",
    "condition": "learner.network.condition",
    "train": "learner.train",
}
_LEARNER_KEY = re.compile(rf"(?<![\w.])({'|'.join(_LEARNER_SECTIONS)})(?=\.[a-z])")


def full_keys(message: str) -> str:
    """The message with the learner's settings under their names in a configuration."""
    return _LEARNER_KEY.sub(lambda match: _LEARNER_SECTIONS[match[1]], message)


def _one_line(error: OmegaConfBaseException, schema: type) -> str:
    """OmegaConf's message without its trailing lines, with the full key in front."""
    first = str(error).splitlines()[0]
    key = getattr(error, "full_key", None)
    if type(error).__name__ == "ConfigKeyError" and isinstance(key, str):
        parent = OmegaConf.select(OmegaConf.structured(schema), key.rpartition(".")[0] or "")
        there = ", ".join(map(str, parent)) if isinstance(parent, DictConfig) else "another"
        return f"{key}: unknown key; expected one of {there}"
    return f"{key}: {first}" if key else first


def new_folder(output: str, name: str) -> Path:
    """Make `output/name`; a number is added to a name that is taken. Raises `ConfigError` where that is impossible."""
    root = Path(output).absolute()
    for number in range(1, 10_000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"output={output}: cannot be written ({error.strerror})") from error
        return path
    raise ConfigError(f"name={name}: 9999 runs of that name exist in {root}")


def check_writable(key: str, place: str) -> None:
    """The nearest existing parent of a folder that will be made must be writable. Raises `ConfigError` naming `key`."""
    folder = Path(place).absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"{key}={place}: {folder} is not a writable folder")


def device_for(gpu: bool, key: str) -> str:
    """`cuda` where a GPU is wanted, else `cpu`. Raises `ConfigError`, naming `key`, where torch sees none."""
    if not gpu:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(f"{key}: torch sees no GPU here; see `embodichain doctor`")
    return "cuda"


def write_json(path: Path, content: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)
