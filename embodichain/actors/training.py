"""Whether a recipe could have been drawn for training: what is kept for evaluation must come in by no other way.

Owns the rule that `RecipeStream` obeys by construction, for all who take recipes from elsewhere. Imports no simulator,
because `embodichain fit` has none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from embodichain.contracts import Recipe, seed_range

# The catalogue's `split`, which cannot be read without a simulator; tests/actors/test_training.py holds both equal.
HELDOUT_TASKS = frozenset({"insert_peg", "pour_cup"})


def check_training(recipe: Recipe, heldout_tasks: Collection[str] = HELDOUT_TASKS) -> None:
    """Refuse a recipe that `RecipeStream` could not have drawn.

    Recipes of imported datasets name nothing that is evaluated here, and pass.

    Args:
        recipe: what would be learned from.
        heldout_tasks: tasks of split `heldout`; those of plug-ins only the catalogue knows.

    Raises:
        ValueError: a held-out task or side of the world, or a seed (the imitated demonstration's, too) outside the
            range `train`; names task, seed, domain and what was expected.
    """
    if recipe.imported:
        return
    train, expected = seed_range("train"), []
    if recipe.task in heldout_tasks:
        expected.append("a task of split 'train'")
    if recipe.seed not in train:
        expected.append(f"a seed of the range 'train', {train.start} to {train.stop - 1}")
    if recipe.parent_seed is not None and recipe.parent_seed not in train:
        expected.append(f"a parent of the range 'train', not {recipe.source}")
    if "@" in recipe.domain:
        expected.append("a domain without a held-out side ('@...')")
    if expected:
        named = f"task={recipe.task}, seed={recipe.seed}, domain={recipe.domain}"
        raise ValueError(f"{named}: training never draws it; expected {' and '.join(expected)}")


def check_all_training(recipes: Iterable[Recipe], heldout_tasks: Collection[str] = HELDOUT_TASKS) -> None:
    """`check_training` of a whole source. Raises `ValueError`: how many of how many it refuses, and the first one."""
    count, refused = 0, list[ValueError]()
    for recipe in recipes:
        count += 1
        try:
            check_training(recipe, heldout_tasks)
        except ValueError as error:
            refused.append(error)
    if refused:
        raise ValueError(f"{len(refused)} of {count} recipes are not for training, first {refused[0]}") from refused[0]
