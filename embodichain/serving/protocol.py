"""The wire of the policy protocol, version 1: msgpack maps with arrays in them. docs/serving.md describes it.

Owns packing and unpacking, the names of errors, and what a server says of itself (`PolicyInfo`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import msgpack
import numpy as np

from embodichain.contracts import MODES, Work

VERSION = 1
MAX_MESSAGE_BYTES = 32 * 2**20
ARRAY = 1  # msgpack extension type: [dtype, shape, bytes], little-endian, C order
DTYPES = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")

BAD_MESSAGE = "bad_message"
BAD_OBSERVATION = "bad_observation"
UNKNOWN_SESSION = "unknown_session"
TOO_MANY_SESSIONS = "too_many_sessions"
WRONG_PROTOCOL = "wrong_protocol"
WRONG_ENCODER = "wrong_encoder"
NOT_RESET = "not_reset"
POLICY_FAILED = "policy_failed"
UNAUTHORISED = "unauthorised"
UNREACHABLE = "unreachable"


class ProtocolError(Exception):
    """What went wrong between client and server.

    Attributes:
        code: one of the names above.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class PolicyInfo:
    """What a server says of its policy in the first message of a connection.

    Attributes:
        name: for people.
        replan: control steps of each chunk to execute before asking again.
        chunk: N, actions per chunk.
        mode: `sync`, `naive_async` or `sai`; only `sai` understands `speculate`.
        whole, ahead, blocking: how the work of a chunk is split, in network passes (`contracts.Work`).
        tokens: encoder of the tokens that it reads, as settings that the client can build one from, with `encoder_id`
            and `shape` [L, C]; empty: it reads no tokens.
        rgb: `cameras`, `width`, `height` of the frames that it reads; empty: none.
        poses: whether it reads the simulator's own poses (privileged).
        protocol: version.
    """

    name: str
    replan: int
    chunk: int
    mode: str = "sync"
    whole: int = 1
    ahead: int = 0
    blocking: int = 1
    tokens: dict[str, Any] = field(default_factory=dict)
    rgb: dict[str, Any] = field(default_factory=dict)
    poses: bool = False
    protocol: int = VERSION

    @property
    def encoder_id(self) -> str:
        """Of the tokens; empty where it reads none."""
        return str(self.tokens.get("encoder_id", ""))

    @property
    def work(self) -> Work:
        """How the work of a chunk is split."""
        return Work(whole=self.whole, ahead=self.ahead, blocking=self.blocking)

    def to_message(self) -> dict[str, Any]:
        """The `hello` of a server."""
        return {"type": "hello", **asdict(self)}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> PolicyInfo:
        """Inverse of `to_message`; keys that this version does not know are ignored.

        Raises:
            ProtocolError: `wrong_protocol` for another version, `bad_message` for a missing or impossible entry.
        """
        said = message.get("protocol")
        if not same(said, VERSION):
            raise ProtocolError(WRONG_PROTOCOL, f"the server speaks protocol {said!r:.120}, this client {VERSION}")
        known = {key: message[key] for key in cls.__dataclass_fields__ if key in message}
        for key in ("tokens", "rgb"):
            if not isinstance(known.get(key, {}), dict):
                raise ProtocolError(BAD_MESSAGE, f"hello: {key}={known[key]!r:.120}, expected a map")
        try:
            info = cls(**known)
        except TypeError as error:
            raise ProtocolError(BAD_MESSAGE, f"hello: {error}") from error
        for key, least in (("replan", 1), ("chunk", 1), ("whole", 1), ("ahead", 0), ("blocking", 1)):
            count = getattr(info, key)
            if not isinstance(count, int) or isinstance(count, bool) or count < least:
                raise ProtocolError(
                    BAD_MESSAGE, f"hello: {key}={count!r:.120}, expected a whole number of at least {least}"
                )
        if info.replan > info.chunk or info.mode not in MODES:
            raise ProtocolError(
                BAD_MESSAGE,
                f"hello: replan={info.replan}, chunk={info.chunk}, mode={info.mode!r:.120}: expected replan <= chunk "
                f"and a mode of {', '.join(MODES)}",
            )
        return info


def same(said: object, expected: int | str) -> bool:
    """Whether a stranger said `expected`; what is of another type never is, arrays among it."""
    return isinstance(said, type(expected)) and said == expected


def pack(message: dict[str, Any]) -> bytes:
    """One message as bytes; NumPy arrays of a dtype in `DTYPES` anywhere in it."""
    return bytes(msgpack.packb(message, default=_pack_array))


def unpack(data: bytes | str) -> dict[str, Any]:
    """Inverse of `pack`; arrays are copies and writable.

    Raises:
        ProtocolError: `bad_message`, for anything that is no such message.
    """
    if isinstance(data, str):
        raise ProtocolError(BAD_MESSAGE, "a text frame: expected binary frames of msgpack")
    try:
        message = msgpack.unpackb(data, ext_hook=_unpack_array, strict_map_key=True)
    except ProtocolError:
        raise
    except Exception as error:  # whatever a stranger's bytes make the unpacker raise
        raise ProtocolError(BAD_MESSAGE, f"not msgpack: {type(error).__name__} {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError(BAD_MESSAGE, "expected a map with the key 'type'")
    return message


def _pack_array(value: object) -> msgpack.ExtType:
    if isinstance(value, np.ndarray) and value.dtype.name in DTYPES:
        array = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        return msgpack.ExtType(ARRAY, msgpack.packb([value.dtype.name, list(value.shape), array.tobytes()]))
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot pack {type(value).__name__}: expected plain values and arrays of {', '.join(DTYPES)}")


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    if code != ARRAY:
        raise ProtocolError(BAD_MESSAGE, f"msgpack extension type {code}: expected {ARRAY}, an array")
    name, shape, content = msgpack.unpackb(data)
    if name not in DTYPES:
        raise ProtocolError(BAD_MESSAGE, f"array of dtype {name!r}: expected one of {', '.join(DTYPES)}")
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ProtocolError(BAD_MESSAGE, f"array of shape {shape}: expected whole numbers from 0")
    dtype = np.dtype(name).newbyteorder("<")
    need = dtype.itemsize * int(np.prod(shape, dtype=object))
    if need != len(content):
        raise ProtocolError(BAD_MESSAGE, f"array {name}{list(shape)}: {len(content)} bytes, expected {need}")
    return np.frombuffer(content, dtype=dtype).reshape(shape).astype(np.dtype(name))
