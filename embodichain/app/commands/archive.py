"""`embodichain archive info | verify | compact | embed | materialise | import`: episodes that are kept."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import fields
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from embodichain.app.settings import ConfigError, config_and_overrides, merged
from embodichain.archive import Archive, Location, compact


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `archive`."""
    archive = commands.add_parser(
        "archive",
        help="kept episodes: what an archive holds, is it whole, tidy it, make its recipes again, import",
        description="Archives are what runs with archive.path=PATH write. PATH is a folder or any fsspec path.",
    )
    actions = archive.add_subparsers(
        dest="action", metavar="info|verify|compact|embed|materialise|import", required=True
    )
    for name, handler, text in (
        ("info", _info, "what an archive holds, by task"),
        ("verify", _verify, "read everything and compare checksums; exit code 1 if anything is damaged"),
        ("compact", _compact, "drop what was never committed, merge the manifests; not while a run writes to it"),
        ("embed", _embed, "keep its instructions' vectors in it, so that `fit` needs no text encoder where it runs"),
        ("materialise", _materialise, "make the episodes of its recipes again, in the simulator, into another archive"),
    ):
        parser = actions.add_parser(name, help=text, description=text)
        parser.add_argument("path", help="the archive")
        parser.add_argument("--json", action="store_true", help="print JSON, nothing else")
        parser.set_defaults(handler=handler)
        if name == "materialise":
            parser.add_argument("target", help="an archive of arrays, made if missing; what it has is not made again")
            parser.add_argument(
                "--restamp",
                action="store_true",
                help="make recipes of another simulator version too, under this one's hash: other episodes",
            )
    text = "encode the frames of a LeRobot dataset and keep its episodes in an archive, which `fit --archive` reads"
    parser = actions.add_parser("import", help=text, description=text)
    parser.add_argument("path", metavar="DATASET", help="a folder with meta/info.json")
    parser.add_argument("target", metavar="OUT", help="an archive, made if missing; what it has is not encoded again")
    parser.add_argument("config", nargs="?", help="a run's YAML file, for its encoder and window.tau")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of `encoder` and `window`, what differs")
    parser.add_argument("--mapping", metavar="FILE", help="YAML: where a dataset of others has the unified numbers")
    parser.add_argument("--json", action="store_true", help="print JSON, nothing else")
    parser.set_defaults(handler=_import)


def _open(path: str) -> Archive:
    try:
        return Archive.open(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _info(arguments: argparse.Namespace) -> int:
    archive = _open(arguments.path)
    manifests, entries = archive.manifests(), archive.entries()
    tasks: dict[str, Counter[str]] = {}
    for entry in entries:
        count = tasks.setdefault(entry.recipe.task, Counter())
        count.update(episodes=1, pairs=entry.pairs, bytes=entry.nbytes)
    facts: dict[str, Any] = {
        "path": str(archive.root),
        "kind": archive.kind,
        "schema_version": archive.schema_version,
        "made_with": archive.made_with,
        "shards": len(manifests),
        "segments": sum(len(manifest.segments) for manifest in manifests.values()),
        "damaged_lines": sum(len(manifest.damaged) for manifest in manifests.values()),
        "episodes": len(entries),
        "pairs": sum(entry.pairs for entry in entries),
        "bytes": sum(entry.nbytes for entry in entries),
        "manifest_bytes": sum(len(entry.to_line()) for entry in entries),
        "sim_hash": dict(Counter(entry.recipe.sim_hash for entry in entries)),
        "domain": dict(Counter(entry.recipe.domain for entry in entries)),
        "tasks": {task: dict(count) for task, count in sorted(tasks.items())},
    }
    if arguments.json:
        print(json.dumps(facts))
        return 0
    table = Table(title=f"{facts['path']}: {facts['kind']}, schema {facts['schema_version']}")
    for column in ("task", "episodes", "pairs", "MB"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, count in sorted(tasks.items()):
        table.add_row(task, str(count["episodes"]), str(count["pairs"]), f"{count['bytes'] / 1e6:.2f}")
    table.add_section()
    table.add_row("all", str(facts["episodes"]), str(facts["pairs"]), f"{facts['bytes'] / 1e6:.2f}")
    console = Console()
    console.print(table)
    for key in ("shards", "segments", "damaged_lines", "manifest_bytes", "sim_hash", "domain"):
        console.print(f"  {key}: {facts[key]}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    archive = _open(arguments.path)
    entries = len(archive.entries())
    with _bar(arguments) as bar:
        task = bar.add_task("verifying", total=entries)
        problems = archive.verify(lambda entry: bar.advance(task))
    leftovers = len(archive.leftovers())
    if arguments.json:
        rows = [
            {"recipe": p.recipe and json.loads(p.recipe.to_json()), "where": p.where, "what": p.what} for p in problems
        ]
        print(json.dumps({"episodes": entries, "uncommitted": leftovers, "problems": rows}))
        return 1 if problems else 0
    for problem in problems:
        recipe = problem.recipe
        whose = f"episode {recipe.id} ({recipe.task}, seed {recipe.seed}): " if recipe else ""
        print(f"{whose}{problem.where} {problem.what}")
    print(f"{archive.root}: {entries} episodes, {len(problems)} problems, {leftovers} never committed")
    return 1 if problems else 0


def _compact(arguments: argparse.Namespace) -> int:
    archive = _open(arguments.path)
    try:
        with _bar(arguments) as bar:
            task = bar.add_task("dropping", total=len(archive.leftovers()))
            done = compact(archive, lambda folder: bar.advance(task))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise RuntimeError(f"{error}; nothing is lost") from error
    if arguments.json:
        print(json.dumps(vars(done)))
    else:
        print(
            f"{archive.root}: {done.dropped} uncommitted entries dropped, manifests in {done.segments_after} segments "
            f"(before: {done.segments_before})"
        )
        if done.damaged_lines:
            print(f"{done.damaged_lines} damaged manifest lines: their shards were left as they are")
    return 0


def _materialise(arguments: argparse.Namespace) -> int:
    from embodichain.app.materialise import episode_maker, materialise, other_simulators
    from tasks.session import sim_hash

    source = _open(arguments.path)
    others = other_simulators(source, sim_hash())
    if others and not arguments.restamp:
        raise ConfigError(
            f"archive {source.root}: {sum(others.values())} of {len(source.entries())} recipes are of simulator "
            f"{', '.join(sorted(others))}, this one is {sim_hash()}: their episodes cannot come out the same; check "
            "out that version, or --restamp to make other episodes of the same seeds"
        )
    try:
        if Location.of(arguments.target) == source.root:
            raise ConfigError(f"target={arguments.target}: is the source; expected another archive")
        make = episode_maker(source.made_with)
        target = Archive.create(arguments.target, made_with=source.made_with)
        with _bar(arguments) as bar:
            task = bar.add_task("simulating", total=len(source.entries()))
            counts = materialise(
                source,
                target,
                make,
                restamp=sim_hash() if arguments.restamp else "",
                on_recipe=lambda: bar.advance(task),
            )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise RuntimeError(f"{arguments.target}: {error}; what is there is whole, the same command goes on") from error
    if arguments.json:
        print(json.dumps(counts))
    else:
        print(f"{target.root}: {counts['made']} made, {counts['there']} there already, {counts['rejected']} rejected")
    return 0


def _embed(arguments: argparse.Namespace) -> int:
    from embodichain.app.texts import embed

    archive = _open(arguments.path)
    try:
        with _bar(arguments) as bar:
            task = bar.add_task("reading", total=len(archive.entries()))
            count = embed(archive, lambda: bar.advance(task))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise RuntimeError(f"{arguments.path}: cannot be written ({error})") from error
    print(json.dumps({"instructions": count}) if arguments.json else f"{archive.root}: {count} instructions encoded")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from embodichain.app.components import image_encoder
    from embodichain.app.config import RunConfig
    from embodichain.app.importing import ImportConfig, import_episodes, made_with, open_dataset

    path, overrides = config_and_overrides(arguments.config, arguments.overrides)
    others = {item.name for item in fields(RunConfig)} - {"encoder", "window"}
    config = merged(ImportConfig, path, overrides, without=others)
    dataset = open_dataset(arguments.path, config, arguments.mapping)
    try:
        encoder = image_encoder(config.encoder)
        target = Archive.create(arguments.target, made_with=made_with(dataset, config))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"OUT={arguments.target}: cannot be written ({error})") from error
    try:
        with _bar(arguments) as bar:
            task = bar.add_task("encoding", total=len(dataset))
            counts = import_episodes(dataset, target, encoder, lambda: bar.advance(task))
    except (ValueError, OSError) as error:
        raise RuntimeError(f"{error}; what is in {target.root} is whole, the same command goes on") from error
    if arguments.json:
        print(json.dumps(counts))
    else:
        print(f"{target.root}: {counts['imported']} imported, {counts['there']} there already")
        print(f"  learn from it: embodichain fit --archive {arguments.target} CONFIG replay.mode=static")
    return 0


def _bar(arguments: argparse.Namespace) -> Progress:
    return Progress(console=Console(stderr=True), disable=arguments.json, transient=True)
