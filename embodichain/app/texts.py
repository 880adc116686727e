"""Vectors of an archive's instructions, kept beside its episodes: who learns from it then needs no text encoder.

text/minilm-l6-v2.npz     `instructions` and f32 `vectors`, row by row, as the encoder of that name makes them
"""

from __future__ import annotations

import io
from collections.abc import Callable
from zipfile import BadZipFile

import numpy as np

from embodichain.archive import Archive, Location
from embodichain.encoders.text import TextEncoder

FOLDER = "text"


def embed(archive: Archive, on_episode: Callable[[], object] = lambda: None) -> int:
    """Encode every instruction of an archive and keep the vectors in it; returns how many there are.

    Raises:
        ValueError: the encoder's weights are missing, or an episode is damaged.
        OSError: the archive cannot be written.
    """
    encoder = TextEncoder()
    instructions: dict[str, None] = {}
    for entry in archive.entries():
        instructions[archive.read(entry).instruction] = None
        on_episode()
    file = io.BytesIO()
    names = sorted(instructions)
    np.savez_compressed(file, instructions=np.array(names, dtype=np.str_), vectors=encoder.encode(names))
    _place(archive, encoder).write_bytes(file.getvalue())
    return len(names)


def archive_text_encoder(archive: Archive) -> TextEncoder:
    """A text encoder that knows what `embed` kept; it needs its weights for other instructions alone.

    Raises:
        ValueError: the kept file is damaged.
    """
    place = _place(archive, TextEncoder())
    if not place.exists():
        return TextEncoder()
    try:
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as kept:
            return TextEncoder(known=dict(zip(kept["instructions"].tolist(), kept["vectors"], strict=True)))
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{place}: damaged ({error}); `embodichain archive embed` makes it again") from error


def _place(archive: Archive, encoder: TextEncoder) -> Location:
    return archive.root / FOLDER / f"{encoder.id}.npz"
