"""`embodichain run` and `embodichain config`."""

from __future__ import annotations

import argparse

from embodichain.app.config import ConfigError, load_config
from embodichain.app.settings import config_and_overrides, merged

EXAMPLES = """\
examples:
  embodichain run configs/quickstart.yaml
  embodichain run configs/quickstart.yaml learner.minutes=3 tasks.handover=0 name=try1
  embodichain run configs/cluster.yaml --dry-run
  embodichain run --resume runs/try1

Ctrl-C stops cleanly: the learner checkpoints, the shards save, and the command that goes on is printed.
A run writes runs/<name>/: config.yaml, summary.json, report.md, checkpoints/, videos/."""


def add_parsers(commands: argparse._SubParsersAction) -> None:
    """Add `run` and `config`."""
    run = commands.add_parser(
        "run",
        help="generate, stream, learn, evaluate, log: the main job",
        description="The main job: simulators stream verified episodes, a model learns from them, evaluators score it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("config", nargs="?", help="a YAML file such as configs/quickstart.yaml")
    run.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file")
    run.add_argument("--resume", metavar="RUN", help="go on with this run (a folder, or a name under runs/)")
    run.add_argument("--dry-run", action="store_true", help="print which node would take which process; start nothing")
    run.set_defaults(handler=_run)
    config = commands.add_parser("config", help="print every setting with its value, as YAML")
    config.add_argument("config", nargs="?", help="a YAML file; without, the defaults")
    config.add_argument("overrides", nargs="*", metavar="key=value")
    config.set_defaults(handler=_config)


def _run(arguments: argparse.Namespace) -> int:
    from embodichain.app.launch import dry_run, launch, resume

    if arguments.resume:
        if arguments.config or arguments.overrides:
            raise ConfigError(
                f"--resume {arguments.resume} goes on with that run's own configuration; expected no config or "
                f"overrides beside it, got {arguments.config}"
            )
        return resume(arguments.resume)
    if not arguments.config:
        raise ConfigError("run: expected a configuration such as configs/quickstart.yaml, or --resume RUN")
    config = load_config(arguments.config, arguments.overrides)
    return dry_run(config) if arguments.dry_run else launch(config)


def _config(arguments: argparse.Namespace) -> int:
    from omegaconf import OmegaConf

    from embodichain.app.config import RunConfig

    path, overrides = config_and_overrides(arguments.config, arguments.overrides)
    config = merged(RunConfig, None, overrides) if path is None else load_config(path, overrides)
    print(OmegaConf.to_yaml(OmegaConf.structured(config)), end="")
    return 0
