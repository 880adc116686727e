"""What all episodes of one replay have in common. Owns: the refusal of an episode that does not fit the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from embodichain.contracts import Episode


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Signature of an episode; the first one that a shard accepts sets it.

    Attributes:
        tokens: L, C of a token frame.
        token_dtype: `float32` or `float16`.
        encoder_id: name and weights hash of the encoder.
        tau: control steps between token frames.
        proprio: P.
        control_hz: control frequency.
        schema_version: of the episode contract.
    """

    tokens: tuple[int, int]
    token_dtype: str
    encoder_id: str
    tau: int
    proprio: int
    control_hz: float
    schema_version: int

    @classmethod
    def of(cls, episode: Episode) -> Schema:
        """The schema of an episode that passed `Episode.check()`. Raises `ValueError` if it carries no tokens."""
        if episode.tokens is None:
            raise ValueError("episode.tokens: none, expected tokens of an encoder; a replay has nothing else to serve")
        return cls(
            tokens=(int(episode.tokens.shape[1]), int(episode.tokens.shape[2])),
            token_dtype=str(episode.tokens.dtype),
            encoder_id=episode.encoder_id,
            tau=episode.tau,
            proprio=int(episode.proprio.shape[1]),
            control_hz=float(episode.control_hz),
            schema_version=episode.schema_version,
        )

    def require(self, other: Schema) -> None:
        """Raise `ValueError`, naming the first field in which `other` differs."""
        theirs = asdict(other)
        for name, value in asdict(self).items():
            if theirs[name] != value:
                raise ValueError(
                    f"episode.{name}={theirs[name]!r}: expected {value!r} as in the episodes already held; windows of "
                    "both could not be stacked or compared"
                )
