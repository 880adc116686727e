"""Domains, held-out sides and language: what is held out cannot be reached by a training recipe."""

from __future__ import annotations

import pytest

from embodichain.actors.recipes import RecipeStream
from embodichain.contracts import seed_range
from tasks import get_task, task_info, task_names
from tasks.domain import HELDOUT_SIDES, STAGES, parse_domain
from tasks.language import instruct, phrasings
from tasks.sampling import draw_scene, is_heldout

TRAINING = [name for name in task_names() if task_info(name).split == "train"]


def test_a_domain_is_a_level_or_stages_and_a_side() -> None:
    assert parse_domain("clean").stages == frozenset()
    assert parse_domain("full").stages == frozenset(STAGES)
    assert parse_domain("default+visual").stages == frozenset({"spatial", "physics", "visual"})
    both = parse_domain("visual+spatial@language")
    assert (both.stages, both.heldout) == (frozenset({"spatial", "visual"}), "language")


@pytest.mark.parametrize("name", ["moon", "", "spatial+", "spatial+spatial", "default@", "default@moon", "full+visual"])
def test_an_unknown_domain_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="domain="):
        parse_domain(name)


@pytest.mark.parametrize("task", task_names())
def test_every_family_has_ten_phrasings_and_others_held_out(task: str) -> None:
    info = task_info(task)
    train, heldout = set(phrasings(info.instructions)), set(phrasings(info.heldout_instructions))
    assert len(train) >= 10
    assert heldout
    assert not train & heldout
    words = draw_scene(get_task(task), 0, "default").words
    for phrase in train | heldout:
        assert "{" not in phrase.format_map(words)


def test_every_phrasing_is_spoken_and_clean_speaks_one() -> None:
    task = get_task("two_arm_lift")
    said = {draw_scene(task, seed, "default").instruction for seed in range(300)}
    templates = phrasings(task.info.instructions)
    heads = {phrase.split("{")[0] for phrase in templates}
    assert {head for head in heads if any(text.startswith(head) for text in said)} == heads
    assert len({draw_scene(task, seed, "clean").instruction for seed in range(20)}) == 1


def test_a_missing_slot_or_a_twin_phrasing_is_an_error() -> None:
    with pytest.raises(KeyError, match="cube"):
        instruct(("lift the {cube}",), {"block": "red"}, None)
    with pytest.raises(ValueError, match="two choices"):
        phrasings(("[lift|lift] it",))


@pytest.mark.parametrize("task", task_names())
def test_the_sides_of_combinations_never_meet(task: str) -> None:
    train = [draw_scene(get_task(task), seed, "default").words for seed in range(60)]
    heldout = [draw_scene(get_task(task), seed, "default@combinations").words for seed in range(20)]
    assert not any(is_heldout(task, words) for words in train)
    assert all(is_heldout(task, words) for words in heldout)
    assert len({tuple(words.items()) for words in heldout}) > 1


@pytest.mark.parametrize("task", task_names())
def test_held_out_scenes_lie_beside_the_ranges_of_training(task: str) -> None:
    """Every size that the task draws, in ranges that do not overlap, over many seeds."""
    train = [draw_scene(get_task(task), seed, "default").draws for seed in range(80)]
    heldout = [draw_scene(get_task(task), seed, "default@scenes").draws for seed in range(80)]
    clean = draw_scene(get_task(task), 0, "clean").draws
    again = draw_scene(get_task(task), 1, "clean").draws
    sizes = [
        key
        for key, value in clean.items()
        if isinstance(value, float) and value == again[key] and ("half" in key or "radius" in key)
    ]
    assert sizes
    for key in sizes:
        inside, outside = ([float(str(draws[key])) for draws in side] for side in (train, heldout))
        assert not any(min(inside) <= value <= max(inside) for value in outside), key


def test_no_training_recipe_can_fall_into_a_held_out_set() -> None:
    """By construction: the stream cannot be built on a held-out side, and its scenes never are of one."""
    for side in HELDOUT_SIDES:
        with pytest.raises(ValueError, match="held-out"):
            RecipeStream(weights={"pick_place": 1.0}, domain=f"default@{side}", run_seed=0, sim_hash="")
    for task in set(task_names()) - set(TRAINING):
        with pytest.raises(ValueError, match=task):
            RecipeStream(weights={task: 1.0}, domain="default", run_seed=0, sim_hash="")
    stream = RecipeStream(weights=dict.fromkeys(TRAINING, 1.0), domain="default", run_seed=7, sim_hash="")
    for _ in range(300):
        recipe = stream.next()
        scene = draw_scene(get_task(recipe.task), recipe.seed, recipe.domain)
        assert recipe.seed in seed_range("train")
        assert not is_heldout(recipe.task, scene.words)
        unheard = {phrase.format_map(scene.words) for phrase in phrasings(task_info(recipe.task).heldout_instructions)}
        assert scene.instruction not in unheard


def test_stages_change_what_they_are_for_and_nothing_else() -> None:
    """The same seed with and without `physics`: equal places and words, other masses."""
    for seed in range(10):
        bare, more = (draw_scene(get_task("push_bar"), seed, d) for d in ("spatial", "spatial+physics"))
        assert bare.words == more.words
        assert bare.draws["bar_x"] == more.draws["bar_x"]
        assert bare.draws["mass"] == pytest.approx(0.918) != more.draws["mass"]


@pytest.mark.parametrize("domain", ["clean", "physics", "visual", "reach", "recovery", "physics+visual"])
def test_no_stage_is_needed_to_keep_held_out_combinations_out(domain: str) -> None:
    for name in task_names():
        for seed in range(20):
            assert not is_heldout(name, draw_scene(get_task(name), seed, domain).words), (name, seed)
