"""`tasks gallery`: a page with pictures and videos that are there."""

from __future__ import annotations

import re

import imageio.v3 as imageio
import numpy as np
import pytest

from embodichain.app import gallery
from embodichain.app.cli import main


@pytest.mark.parametrize(
    ("arguments", "match"), [(["--tasks", "juggle"], "juggle"), (["--seed", "-1"], "--seed=-1")], ids=["task", "seed"]
)
def test_bad_arguments_are_named(arguments, match, capsys, tmp_path):
    assert main(["tasks", "gallery", "--out", str(tmp_path / "page"), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert match in line
    assert not (tmp_path / "page").exists()


@pytest.mark.render
def test_the_page_shows_every_domain(tmp_path, capsys):
    arguments = ["--tasks", "push_bar", "--domains", "clean", "default"]
    assert main(["tasks", "gallery", "--out", str(tmp_path), *arguments]) == 0
    page = (tmp_path / "index.html").read_text()
    assert str(tmp_path / "index.html") in capsys.readouterr().out
    shown = re.findall(r'src="([^"]+)"', page)
    assert shown == ["push_bar.jpg", "push_bar_clean.mp4", "push_bar_default.mp4"]
    sheet = imageio.imread(tmp_path / "push_bar.jpg")
    assert sheet.shape[0] == 2 * (gallery.CROP[0].stop - gallery.CROP[0].start) // 2  # a row per domain, halved
    assert sheet.std() > 20
    first, *_, last = imageio.imread(tmp_path / "push_bar_default.mp4")
    assert (first != last).any()


def test_an_overview_of_an_odd_number_of_tasks_ends_in_white():
    rows = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20, 30)]
    picture = gallery.side_by_side(rows)
    assert picture.shape == (8, 12, 3)
    assert (picture[:4, 6:] == 20).all()
    assert (picture[4:, :6] == 30).all()
    assert (picture[4:, 6:] == 255).all()
