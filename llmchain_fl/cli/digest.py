"""``llmchain-fl digest``: what a site writes into ``limits.base_models`` for a base model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(folder: Annotated[Path, typer.Argument(help="a model's folder, as save_pretrained writes it")]) -> None:
    """Print the digest of a model's folder, by which a site file allows it."""
    from llmchain_fl.core.base_digest import base_digest

    typer.echo(base_digest(folder))
