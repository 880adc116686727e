"""`episode show`: bad arguments are one line; the film of a rejected episode ends in its reasons."""

from __future__ import annotations

import imageio.v3 as imageio
import numpy as np
import pytest

from embodichain.app.cli import main
from embodichain.app.filming import RED, WHITE, captioned


def test_without_a_renderer_it_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("embodichain.doctor.renderer_available", lambda: (False, "no Vulkan"))
    assert main(["episode", "show", "pick_place"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs a renderer" in line
    assert "no Vulkan" in line


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["no_such_task"], "no_such_task"),
        (['{"task": "pick_place"'], "not a recipe"),
        (["pick_place", "--every", "0"], "--every=0"),
        (["pick_place", "--domain", "mars"], "mars"),
    ],
)
def test_bad_arguments_are_named(arguments, match, capsys):
    assert main(["episode", "show", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert match in line


def test_captions_wrap_and_keep_their_colour():
    plain = np.full((120, 200, 3), 90, dtype=np.uint8)
    one = captioned(plain, [("short", WHITE)])
    many = captioned(plain, [("short", WHITE), ("rejected: penetration, arm_contact, no_success", RED)])
    assert (plain == 90).all()
    assert not (one == many).all()
    changed = np.any(many != 90, axis=(1, 2)).nonzero()[0]
    assert changed.max() > 45  # three rows: the second text does not fit into one
    assert changed.max() < 80
    reddest = (many[..., 0].astype(int) - many[..., 1]).max()
    assert reddest > 150
    assert (one[..., 0].astype(int) - one[..., 1]).max() == 0


@pytest.mark.render
def test_the_film_of_an_infeasible_plan_is_a_still_with_its_reason(monkeypatch, tmp_path, capsys):
    from tasks.base import PlanFailure
    from tasks.pick_place import PickPlace

    def refuse(*_: object) -> None:
        raise PlanFailure("ik_unreachable", "too far")

    monkeypatch.setattr(PickPlace, "plan", refuse)
    path = tmp_path / "film.mp4"
    assert main(["episode", "show", "pick_place", "--out", str(path)]) == 0
    assert "rejected: plan_ik_unreachable (ik_unreachable: too far)" in capsys.readouterr().out
    frames = imageio.imread(path)
    assert 20 < len(frames) < 60
    last = frames[-1].astype(int)
    assert (last[..., 0] - last[..., 1]).max() > 100
    assert np.abs(last[200:] - frames[0][200:]).mean() < 3  # nothing moved
