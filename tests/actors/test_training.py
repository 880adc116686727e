"""Nothing that is kept for evaluation passes for a recipe of training, whoever made it."""

from __future__ import annotations

from typing import Any

import pytest

from embodichain.actors.training import HELDOUT_TASKS, check_all_training, check_training
from embodichain.contracts import IMPORTED, Recipe, seed_range
from tasks.domain import HELDOUT_SIDES
from tasks.registry import task_info, task_names

TRAIN = seed_range("train").start


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"task": "pick_place", "seed": TRAIN, "domain": "default", **changes})


def test_the_held_out_tasks_are_those_of_the_catalogue() -> None:
    assert {name for name in task_names() if task_info(name).split != "train"} == HELDOUT_TASKS


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": seed_range("train").stop - 1},
        {"domain": "full"},
        {"source": f"mimic:{TRAIN + 9}"},
        {"source": "recovery"},
        {"task": f"{IMPORTED}cubes", "seed": 3, "domain": "dataset-0123"},
    ],
)
def test_what_training_may_draw_passes(changes: dict[str, Any]) -> None:
    check_training(recipe(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *[({"seed": seed_range(name).start}, "a seed of the range 'train', 100000000 to 1999999999")
          for name in ("test", "heldout", "tune", "eval")],
        ({"seed": TRAIN - 1}, "a seed of the range"),
        ({"seed": seed_range("train").stop}, "a seed of the range"),
        ({"source": "mimic:3000000"}, "a parent of the range 'train', not mimic:3000000"),
        *[({"domain": f"full@{side}"}, "a domain without a held-out side") for side in HELDOUT_SIDES],
        *[({"task": task}, "a task of split 'train'") for task in sorted(HELDOUT_TASKS)],
        ({"task": "pour_cup", "domain": "clean@scenes"}, "a task of split 'train' and a domain without"),
    ],
)  # fmt: skip
def test_what_training_may_not_draw_is_refused_with_its_name(changes: dict[str, Any], expected: str) -> None:
    bad = recipe(**changes)
    with pytest.raises(ValueError, match="training never draws it; expected") as caught:
        check_training(bad)
    said = str(caught.value)
    assert expected in said
    assert said.startswith(f"task={bad.task}, seed={bad.seed}, domain={bad.domain}: ")
    assert "\n" not in said


def test_a_catalogue_may_name_more_held_out_tasks() -> None:
    check_training(recipe(task="bridge_piers"))
    with pytest.raises(ValueError, match="task=bridge_piers"):
        check_training(recipe(task="bridge_piers"), {"bridge_piers"})


def test_a_source_says_how_many_are_refused_and_the_first_one() -> None:
    good, other, bad = recipe(), recipe(domain="full"), [recipe(seed=seed) for seed in (5, 4)]
    check_all_training([good, other])
    check_all_training([])
    with pytest.raises(ValueError, match=r"^2 of 4 recipes are not for training, first task=pick_place, seed=5, "):
        check_all_training([good, bad[0], other, bad[1]])
