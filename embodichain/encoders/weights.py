"""Weights of a DINOv3: the ones in this package, a local folder, the hub, or a seeded random draw.

Hands on a `transformers` `DINOv3ViTModel` in float32 and a hash of what it is. Never falls back to other weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

PATCH = 16
EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"  # docs/encoder.md says what is in it and how it was made
_RANDOM = "random:"
_KIND = "dinov3_vit"
_RANDOM_SEED = 20_260_416
# hidden size, layers, heads of the random-init presets; `mini` has the shape of the embedded weights, `small` that of
# the published ViT-S/16.
_PRESETS: dict[str, tuple[int, int, int]] = {
    "tiny": (64, 2, 2),
    "mini": (192, 4, 3),
    "small": (384, 12, 6),
}
EXPECTED = (
    f"{EMBEDDED}, a folder with config.json and model.safetensors, a hub id, or {_RANDOM}{{{'|'.join(_PRESETS)}}}"
)


def load_model(weights: str) -> DINOv3ViTModel:
    """The network in float32. Raises `ValueError` naming `encoder.weights`; never falls back."""
    if weights.startswith(_RANDOM):
        return _random_model(weights.removeprefix(_RANDOM))
    path = EMBEDDED_FOLDER if weights == EMBEDDED else Path(weights).expanduser()
    if not path.is_dir():
        if path.is_absolute() or weights.count("/") != 1 or weights.startswith((".", "~")):
            raise ValueError(f"encoder.weights={weights}: no such folder; expected {EXPECTED}")
        path = _from_hub(weights)
    from safetensors import SafetensorError
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    try:
        kind = json.loads((path / "config.json").read_text()).get("model_type")
        if kind != _KIND:
            raise ValueError(f"config.json says model_type={kind}, expected {_KIND}")
        with quiet():
            config = DINOv3ViTConfig.from_pretrained(str(path))
            # With `output_loading_info` this is a pair, which its annotation does not say.
            loaded: Any = DINOv3ViTModel.from_pretrained(
                str(path), config=config, output_loading_info=True, use_safetensors=True, dtype=torch.float32
            )
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"encoder.weights={weights}: cannot be loaded ({_first_line(error)}); expected {EXPECTED}"
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ValueError(
            f"encoder.weights={weights}: {len(missing)} tensors are missing, first {missing[0]}; "
            "expected all weights of a DINOv3 ViT (the rest would be random)"
        )
    if model.config.patch_size != PATCH:
        raise ValueError(f"encoder.weights={weights}: patch {model.config.patch_size}, expected {PATCH}")
    return model


def _from_hub(name: str) -> Path:
    """Folder of a hub model, downloaded if it is not in the local cache yet."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    files = ["config.json", "*.safetensors"]
    try:
        cached = Path(snapshot_download(name, allow_patterns=files, local_files_only=True))
        if any(cached.glob("*.safetensors")):
            return cached
    except (OSError, HFValidationError):
        pass  # not in the cache: ask the hub
    try:
        return Path(snapshot_download(name, allow_patterns=files))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ValueError(
            f"encoder.weights={name}: no such folder, and not on the hub or the hub cannot be reached "
            f"({_first_line(error)}); expected {EXPECTED}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]


def _random_model(preset: str) -> DINOv3ViTModel:
    """The network of a preset. Raises `ValueError` for an unknown one."""
    if preset not in _PRESETS:
        raise ValueError(
            f"encoder.weights={_RANDOM}{preset}: expected one of {', '.join(_RANDOM + p for p in _PRESETS)}"
        )
    from transformers import DINOv3ViTConfig

    hidden, layers, heads = _PRESETS[preset]
    return random_model_of(
        DINOv3ViTConfig(
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_register_tokens=4,
        )
    )


def random_model_of(config: DINOv3ViTConfig) -> DINOv3ViTModel:
    """A network of that shape whose weights follow from the shape alone, equal in every process.

    Drawn with NumPy's own generator: torch's differs between vector instruction sets in the last bit.
    """
    from transformers import DINOv3ViTModel

    with torch.random.fork_rng(devices=[]):
        model = DINOv3ViTModel(config)
    rng = np.random.default_rng(_RANDOM_SEED)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.ndim > 1 and not name.endswith("mask_token"):
            draw = 0.02 * np.clip(rng.standard_normal(parameter.shape, dtype=np.float32), -2.0, 2.0)
            parameter.data.copy_(torch.from_numpy(draw))
    return model


def weights_hash(model: DINOv3ViTModel) -> str:
    """12 hex digits over every tensor's name, shape and float32 bytes, and what else decides a token."""
    config = model.config
    digest = hashlib.blake2b(digest_size=6)
    digest.update(
        repr((config.num_attention_heads, config.rope_theta, config.layer_norm_eps, config.hidden_act)).encode()
    )
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().to(torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar and no load report on the terminal, and the caller's settings back afterwards."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
