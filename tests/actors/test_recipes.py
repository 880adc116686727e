"""The recipe stream: reproducible, resumable, inside the training seeds."""

from collections import Counter

import pytest

from embodichain.actors.recipes import RecipeStream
from embodichain.contracts import seed_range
from tasks.registry import get_task
from tasks.sampling import draw_scene


def stream(**changes) -> RecipeStream:
    settings = {"weights": {"pick_place": 3.0, "handover": 1.0}, "domain": "default", "run_seed": 0, "sim_hash": "x"}
    return RecipeStream(**{**settings, **changes})


def test_a_resumed_stream_goes_on_where_it_stopped():
    whole, first = stream(), stream()
    recipes = [whole.next() for _ in range(20)]
    assert [first.next() for _ in range(8)] == recipes[:8]
    resumed = stream(drawn=first.drawn)
    assert [resumed.next() for _ in range(12)] == recipes[8:]


def test_tasks_follow_their_weights():
    recipes = stream()
    counts = Counter(recipes.next().task for _ in range(4000))
    assert 0.72 < counts["pick_place"] / 4000 < 0.78


def test_every_seed_is_a_training_seed_and_runs_do_not_overlap():
    one, two = stream(run_seed=3), stream(run_seed=4)
    seeds = [s.at(i).seed for s in (one, two) for i in (0, 1, 9_999_999)]
    assert len(set(seeds)) == 6
    assert all(seed in seed_range("train") for seed in seeds)
    assert not any(seed in seed_range(name) for seed in seeds for name in ("test", "heldout", "tune", "eval"))


def test_a_stream_that_was_turned_to_a_held_out_side_draws_nothing():
    recipes = stream()
    recipes.next()
    recipes.domain = "default@scenes"
    with pytest.raises(ValueError, match="domain=default@scenes: training never draws it"):
        recipes.next()


def test_each_task_counts_its_own_seeds_and_none_is_met_twice():
    recipes = stream()
    drawn = [recipes.next() for _ in range(2500)]
    seeds = {task: [r.seed for r in drawn if r.task == task] for task in ("pick_place", "handover")}
    for own in seeds.values():
        assert own == list(range(own[0], own[0] + len(own)))
    assert not set(seeds["pick_place"]) & set(seeds["handover"])
    last = {recipes.at(9_999_000 + i).seed for i in range(1000)}
    assert len(last) == 1000
    assert all(seed_range("train").start <= seed < seed_range("train").start + 10_000_000 for seed in last)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weights": {"pick_place": 1.0, "handover": 1e-4}}, "tasks.handover"),
        ({"run_seed": -1}, "seed=-1"),
        ({"run_seed": 190}, "seed=190"),
        ({"weights": {}}, "tasks"),
        ({"domain": "default@scenes"}, "held-out"),
    ],
)
def test_impossible_settings_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        stream(**changes)


def test_imitations_take_their_share_and_their_parents_are_never_drawn():
    recipes = stream(sources={"expert": 1.0, "mimic": 1.0}, mimic_parents=5)
    drawn = [recipes.next() for _ in range(600)]
    parents = {recipe.parent_seed for recipe in drawn} - {None}
    assert 0.42 < sum(recipe.source != "expert" for recipe in drawn) / 600 < 0.58
    assert 2 < len(parents) <= 5
    assert all(parent in seed_range("train") for parent in parents)
    assert not parents & {recipe.seed for recipe in drawn}
    assert all(stream().at(i).source == "expert" for i in range(50))


def test_a_scene_imitates_a_demonstration_from_its_own_side_of_the_table():
    recipes = stream(weights={"pick_place": 1.0}, sources={"mimic": 1.0}, mimic_parents=8)
    arms = []
    for recipe in (recipes.next() for _ in range(20)):
        assert recipe.parent_seed is not None
        scenes = [draw_scene(get_task("pick_place"), seed, "default") for seed in (recipe.seed, recipe.parent_seed)]
        arms.append([scene.words["arm"] for scene in scenes])
    assert sum(here == there for here, there in arms) >= 19
    assert {here for here, _ in arms} == {"left", "right"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sources": {"luck": 1.0}}, "sources"),
        ({"sources": {"expert": 0.0}}, "sources"),
        ({"sources": {"mimic": 1.0}, "weights": {"push_bar": 1.0}}, "push_bar"),
        ({"mimic_parents": 0}, "mimic_parents"),
    ],
)
def test_sources_that_cannot_be_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        stream(**changes)
