"""What a server's hello may say, and that arrays come through as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embodichain.serving.protocol import BAD_MESSAGE, WRONG_PROTOCOL, PolicyInfo, ProtocolError, pack, unpack

INFO = PolicyInfo(name="counter", replan=8, chunk=16, tokens={"name": "state", "encoder_id": "fake", "shape": [4, 12]})


def refused(code: str, match: str, message: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=match) as caught:
        PolicyInfo.from_message(message)
    assert caught.value.code == code


def test_what_a_client_makes_of_a_strange_server() -> None:
    good = INFO.to_message()
    assert PolicyInfo.from_message({**good, "news": 1}) == INFO
    for changes, code in (
        ({"protocol": 2}, WRONG_PROTOCOL),
        ({"replan": 17}, BAD_MESSAGE),
        ({"replan": "x"}, BAD_MESSAGE),
        ({"mode": "fast"}, BAD_MESSAGE),
        ({"tokens": None}, BAD_MESSAGE),
        ({"rgb": [64, 64]}, BAD_MESSAGE),
        ({"protocol": np.ones(2)}, WRONG_PROTOCOL),
    ):
        refused(code, "hello|protocol", {**good, **changes})
    idle = PolicyInfo.from_message({**good, "ahead": 0})
    assert (idle.ahead, idle.work.ahead_share) == (0, 0.0)
    del good["chunk"]
    refused(BAD_MESSAGE, "chunk", good)


@pytest.mark.parametrize("key", ["replan", "chunk", "whole", "ahead", "blocking"])
@pytest.mark.parametrize("said", ["x", -5, True, 1.0, None, float("nan")])
def test_a_count_that_is_none_is_refused_by_name(key: str, said: object) -> None:
    refused(BAD_MESSAGE, f"hello: {key}=", {**INFO.to_message(), key: said})


def test_arrays_survive_the_wire() -> None:
    for array in (np.arange(6, dtype=np.float16).reshape(2, 3), np.zeros((0, 30), np.float32), np.array([True])):
        back = unpack(pack({"type": "x", "a": array.T}))["a"]
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array.T)
    with pytest.raises(TypeError, match="cannot pack"):
        pack({"a": np.array(["text"])})
