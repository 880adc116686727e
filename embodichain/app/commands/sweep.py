"""`embodichain sweep`."""

from __future__ import annotations

import argparse

from embodichain.app.settings import ConfigError

EXAMPLES = """\
examples:
  embodichain sweep configs/sweeps/replay_bound_quick.yaml --dry-run
  embodichain sweep configs/sweeps/replay_bound_quick.yaml seeds=[0,1] name=try
  embodichain sweep --resume try
  embodichain sweep --resume try --retry-failed
  RAY_ADDRESS=HEAD:6379 embodichain sweep configs/sweeps/throughput.yaml output=/shared/runs

key=value is one of the sweep's own keys (name, output, seeds, parallel, ...), or a run's, for all of its cells.
Ctrl-C stops cleanly and prints the command that goes on; what is finished is never run again."""


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `sweep`."""
    sweep = commands.add_parser(
        "sweep",
        help="many runs that differ in a few keys, and one report over them",
        description="Runs every cell of a sweep as a run of its own, records them in MLflow, and writes the report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweep.add_argument("config", nargs="?", help="a YAML file such as configs/sweeps/replay_bound_quick.yaml")
    sweep.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file")
    sweep.add_argument("--resume", metavar="NAME", help="go on with this sweep (a folder, or a name under runs/)")
    sweep.add_argument("--retry-failed", action="store_true", help="with --resume: run failed cells again")
    sweep.add_argument("--dry-run", action="store_true", help="print every cell and what it means; start nothing")
    sweep.set_defaults(handler=_sweep)


def _sweep(arguments: argparse.Namespace) -> int:
    from embodichain.app.sweep.launch import launch, resume

    if arguments.resume:
        if arguments.config or arguments.overrides or arguments.dry_run:
            raise ConfigError(
                f"--resume {arguments.resume} goes on with that sweep's own settings; expected nothing but "
                "--retry-failed beside it"
            )
        return resume(arguments.resume, retry_failed=arguments.retry_failed)
    if not arguments.config:
        raise ConfigError(
            "sweep: expected a configuration such as configs/sweeps/throughput_quick.yaml, or --resume NAME"
        )
    if arguments.retry_failed:
        raise ConfigError("--retry-failed: expected --resume NAME with it")
    return launch(arguments.config, arguments.overrides, dry_run=arguments.dry_run)
