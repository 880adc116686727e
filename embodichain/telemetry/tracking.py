"""Where runs are recorded: the settings of MLflow, and whether its tracking store answers.

MLflow itself tries an address for minutes before it gives up; `check_tracking` says in seconds, before anything starts,
what does not answer. Nothing here imports MLflow.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

ANSWER_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class MlflowConfig:
    """Where MLflow records the run.

    Attributes:
        tracking_uri: its tracking store: a server's `http://` address, a data base such as `postgresql://...`, or
            `sqlite:///FILE`; empty: `MLFLOW_TRACKING_URI`, and without that `mlflow.db` under `output`.
        experiment: made if it is new.
        artifacts: where a new experiment keeps its files, a folder or a URI; empty: under `output`, or what the
            server says where the store is one.
        parent: id of the MLflow run that this one is a child of.
        labels: further parameters of the record, name -> value.
    """

    tracking_uri: str = ""
    experiment: str = "embodichain"
    artifacts: str = ""
    parent: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def uri(self, output: str | Path) -> str:
        """The tracking store of runs under `output`."""
        default = f"sqlite:///{Path(output).absolute() / 'mlflow.db'}"
        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "") or default

    def artifact_root(self, output: str | Path) -> str:
        """Where a new experiment keeps its files; empty: the server's choice."""
        served = self.uri(output).startswith(("http://", "https://"))
        return self.artifacts or ("" if served else str(Path(output).absolute() / "mlflow-artifacts"))


def check_tracking(uri: str) -> None:
    """Ask the tracking store `uri` for a sign of life.

    Raises:
        ValueError: one line; it does not answer, its driver is missing, or its file cannot be written.
    """
    try:
        if uri.startswith("sqlite:///"):
            _check_file(Path(uri.removeprefix("sqlite:///")))
        elif uri.startswith(("http://", "https://")):
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS).close()
        else:
            _check_database(uri)
    except (OSError, ValueError, ImportError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        line = (str(reason).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"mlflow.tracking_uri={without_password(uri)}: the tracking store does not answer ({line}); nothing was "
            "started"
        ) from error


def _check_file(path: Path) -> None:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise OSError(f"{folder} cannot be written")


def _check_database(uri: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        arguments = {"connect_timeout": int(ANSWER_SECONDS)} if uri.startswith("postgresql") else {}
        create_engine(uri, connect_args=arguments).connect().close()
    except SQLAlchemyError as error:
        raise OSError(str(getattr(error, "orig", None) or error)) from error


def without_password(uri: str) -> str:
    """`uri` as it may be shown."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri
