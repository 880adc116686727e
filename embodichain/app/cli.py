"""The command line: `embodichain COMMAND`.

Exit codes: 0 success, 1 something failed while working, 2 the user got something wrong (one line says
what, nothing was created), 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from embodichain.app.settings import ConfigError

DESCRIPTION = """\
An online simulation data engine for robot learning: actors run randomised dual-arm physics, keep what
physics confirms and stream it into a replay with a hard reuse bound; a world-action model learns from the
stream; evaluators score every checkpoint in closed loop on held-out seeds."""

EPILOG = """\
first steps:
  embodichain doctor                            what works on this machine
  embodichain tasks show pick_place --seeds 20  the expert's success on a task
  embodichain run configs/quickstart.yaml       the whole loop, about ten minutes on two cores
  embodichain run --resume quickstart           go on with a run that was stopped"""


# The module of `app.commands` behind each command. Only the one that is named is imported: `fit` needs no simulator.
COMMANDS = {
    "run": "run",
    "config": "run",
    "fit": "fit",
    "sweep": "sweep",
    "evaluate": "evaluate",
    "serve": "serve",
    "imagine": "imagine",
    "tasks": "tasks",
    "episode": "episode",
    "encoder": "encoder",
    "archive": "archive",
    "export": "export",
    "law": "law",
    "bench": "bench",
}


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command line: all of it, or as much as `command` needs."""
    parser = argparse.ArgumentParser(
        prog="embodichain",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    needed = [COMMANDS[command]] if command in COMMANDS else dict.fromkeys(COMMANDS.values())
    for name in needed:
        importlib.import_module(f"embodichain.app.commands.{name}").add_parsers(commands)
    doctor = commands.add_parser("doctor", help="what works on this machine, and what to do about the rest")
    doctor.add_argument("--json", action="store_true", help="print the same table as JSON, nothing else")
    doctor.set_defaults(handler=_doctor)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    arguments = _parse(argv)
    try:
        return int(arguments.handler(arguments))
    except ConfigError as error:
        print(f"embodichain: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("embodichain: interrupted", file=sys.stderr)
        return 130
    except RuntimeError as error:
        print(f"embodichain: failed: {error}", file=sys.stderr)
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """As argparse does; but `key=value` may also come after an option, as people type it."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser(words[0] if words else None)
    arguments, more = parser.parse_known_args(words)
    if more and hasattr(arguments, "overrides") and all("=" in word and word[0] != "-" for word in more):
        arguments.overrides += more
    elif more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    return arguments


def _doctor(arguments: argparse.Namespace) -> int:
    from embodichain.doctor import run_doctor

    return run_doctor(json_output=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
