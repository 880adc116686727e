"""`embodichain episode make | replay | show`: one recipe -> one episode; that it comes out the same again; its film."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from embodichain.app.commands.known import known_tasks
from embodichain.app.config import ConfigError
from embodichain.contracts import Episode, Recipe, Verdict, seed_range


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `episode`."""
    episode = commands.add_parser("episode", help="one recipe -> one episode; prove that it replays exactly")
    actions = episode.add_subparsers(dest="action", metavar="make|replay|show", required=True)
    for name, handler, text in (
        ("make", _make, "make one episode and print what it holds"),
        (
            "replay",
            _replay,
            "make it in two fresh processes, in one of them after other episodes, and compare bit for bit",
        ),
        ("show", _show, "a video of one episode with its verdict: why was it rejected?"),
    ):
        parser = actions.add_parser(name, help=text, description=text)
        parser.add_argument("task", nargs="?", help="task name, or a whole recipe as JSON")
        parser.add_argument("--seed", type=int, default=0, help="index into the `test` seed range (default 0)")
        parser.add_argument("--domain", default="default", help="randomisation level (default: default)")
        parser.add_argument("--recipe", metavar="JSON", help="a whole recipe, as `episode make` prints it")
        parser.add_argument("--json", action="store_true", help="print JSON, nothing else")
        parser.set_defaults(handler=handler)
        if name == "show":
            parser.add_argument("--out", metavar="FILE", help="default: runs/videos/<task>-<recipe id>.mp4")
            parser.add_argument("--every", type=int, default=2, metavar="K", help="control steps per frame (default 2)")


def _recipe(arguments: argparse.Namespace) -> Recipe:
    from tasks.domain import parse_domain
    from tasks.session import sim_hash

    text = arguments.recipe or (arguments.task if (arguments.task or "").startswith("{") else None)
    if text:
        try:
            recipe = Recipe.from_json(text)
        except ValueError as error:
            raise ConfigError(f"--recipe: {error}") from error
        if recipe.sim_hash != sim_hash():
            raise ConfigError(
                f"--recipe: made by simulator {recipe.sim_hash or '(none)'}, this one is {sim_hash()}; "
                "the episode could not come out the same"
            )
    elif arguments.task:
        if not 0 <= arguments.seed < seed_range("test").stop:
            raise ConfigError(f"--seed={arguments.seed}: expected 0 to {seed_range('test').stop - 1}")
        seed = seed_range("test").at(arguments.seed)
        recipe = Recipe(task=arguments.task, seed=seed, domain=arguments.domain, sim_hash=sim_hash())
    else:
        raise ConfigError("episode: expected a task name or --recipe JSON")
    known_tasks([recipe.task])
    try:
        parse_domain(recipe.domain)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return recipe


def _produce(recipe: Recipe, before: int = 0) -> tuple[Episode | None, Verdict]:
    """Make one episode in this process, after `before` others."""
    from embodichain.encoders import StateEncoder
    from embodichain.rollout import RolloutOptions, make_episode
    from tasks.registry import slots
    from tasks.session import TaskSession

    session, encoder = TaskSession(render=None), StateEncoder(**slots([recipe.task]))
    for index in range(before):
        other = Recipe(task=recipe.task, seed=seed_range("test").at(900_000 + index), domain=recipe.domain)
        make_episode(other, session, encoder, RolloutOptions())
    episode, verdict, _ = make_episode(recipe, session, encoder, RolloutOptions())
    session.close()
    return episode, verdict


def _make(arguments: argparse.Namespace) -> int:
    recipe = _recipe(arguments)
    episode, verdict = _produce(recipe)
    row = {
        "recipe": asdict(recipe),
        "recipe_id": recipe.id,
        "accepted": verdict.accepted,
        "reasons": list(verdict.reasons),
        "instruction": episode.instruction if episode else None,
        "pairs": episode.pairs if episode else 0,
        "megabytes": episode.nbytes() / 1e6 if episode else 0.0,
        "draws": episode.draws if episode else {},
    }
    if arguments.json:
        print(json.dumps(row))
        return 0
    console = Console()
    verdict_text = "accepted" if verdict.accepted else f"rejected: {', '.join(verdict.reasons)}"
    console.print(f"[bold]{recipe.id}[/bold] {verdict_text}")
    for key in ("instruction", "pairs", "megabytes", "draws"):
        console.print(f"  {key}: {row[key]}")
    console.print(f"  make it again: embodichain episode replay --recipe '{recipe.to_json()}'")
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from embodichain.rollout import compare_episodes

    recipe = _recipe(arguments)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as one, context.Pool(1) as other:
        first = one.apply_async(_produce, (recipe, 0))
        second = other.apply_async(_produce, (recipe, 2))
        (episode, verdict), (again, verdict_again) = first.get(), second.get()
    if episode is None or again is None:
        same, details = verdict == verdict_again, [f"no plan: {', '.join(verdict.reasons)}"]
    else:
        differences = compare_episodes(episode, again)
        same = not differences and verdict == verdict_again
        details = [f"{difference.field}: {difference.detail}" for difference in differences]
    if arguments.json:
        print(json.dumps({"recipe_id": recipe.id, "exact": same, "details": details}))
    else:
        pairs = episode.pairs if episode else 0
        print(f"{recipe.id}: {'bit-exact' if same else 'DIFFERENT'} over {pairs} control steps, in two processes")
        for detail in details:
            print(f"  {detail}")
    return 0 if same else 1


def _show(arguments: argparse.Namespace) -> int:
    from embodichain.app.filming import film_episode, filmed_session
    from embodichain.evaluation.evaluator import write_video

    if arguments.every < 1:
        raise ConfigError(f"--every={arguments.every}: expected at least 1")
    recipe = _recipe(arguments)
    film = film_episode(filmed_session("episode show", every=arguments.every), recipe)
    path = Path(arguments.out or f"runs/videos/{recipe.task}-{recipe.id}.mp4")
    frames = film.frames
    write_video(path, frames, film.fps)
    if arguments.json:
        print(json.dumps({"recipe_id": recipe.id, "reasons": film.reasons, "detail": film.detail, "video": str(path)}))
        return 0
    verdict = f"rejected: {', '.join(film.reasons)}" if film.reasons else "accepted"
    print(f"{recipe.id}: {verdict}{f' ({film.detail})' if film.detail else ''} after {film.steps} control steps")
    print(f"{path}: {len(frames)} frames")
    return 0
