"""A benchmark's result in MLflow: `embodichain bench NAME --mlflow [URI]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from embodichain.app.config import ConfigError, MlflowConfig
from embodichain.telemetry.tracking import check_tracking, without_password

EXPERIMENT = "benchmarks"
OUTPUT = "runs"  # where `make dashboard` looks


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--mlflow`."""
    parser.add_argument(
        "--mlflow",
        nargs="?",
        const="",
        metavar="URI",
        help=f"record table and picture in MLflow, too (default: $MLFLOW_TRACKING_URI, or {OUTPUT}/mlflow.db)",
    )


def check(uri: str | None) -> None:
    """The tracking store must answer before anything is measured. Raises `ConfigError`."""
    if uri is not None:
        try:
            check_tracking(MlflowConfig(tracking_uri=uri).uri(OUTPUT))
        except ValueError as error:
            raise ConfigError(f"--mlflow: {error}") from error


def record(uri: str, bench: str, about: Mapping[str, str], files: Sequence[Path]) -> str:
    """Make a run called `bench` with `about` as parameters and `files` as artifacts; where it is.

    Raises `RuntimeError` if the store refuses: the files themselves are kept.
    """
    from embodichain.telemetry.logger import LoggerConfig, RunLogger

    settings = MlflowConfig(tracking_uri=uri, experiment=EXPERIMENT)
    store = settings.uri(OUTPUT)
    try:
        logger = RunLogger(LoggerConfig.of(settings, OUTPUT, bench))
    except ValueError as error:
        raise RuntimeError(f"--mlflow: {error}; the result is in {files[0]}") from error
    logger.log_params(about)
    for file in files:
        logger.log_artifact(file)
    if not logger.finish("done"):
        raise RuntimeError(
            f"--mlflow: {without_password(store)}: {logger.status()['error']}; the result is in {files[0]}"
        )
    return f"experiment {EXPERIMENT} of {without_password(store)}"
