"""The `--domain` option that several commands share."""

from __future__ import annotations

import argparse

DOMAIN_HELP = "clean, default, full, or stages joined by '+'; then '@scenes', ... for held-out sides (default: default)"


def domain_name(name: str) -> str:
    """`name`, if it is a domain. Raises `ArgumentTypeError` naming what is valid otherwise."""
    from tasks.domain import parse_domain

    try:
        return parse_domain(name).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
