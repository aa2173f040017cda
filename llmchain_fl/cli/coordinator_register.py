"""``llmchain-fl coordinator register``: the roster's keys into the SuperLink that is up, without a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    kit: Annotated[Path, typer.Argument(help="The folder of the coordinator's kit.")] = Path(),
) -> None:
    """Register every site of the roster and unregister those that are revoked. `coordinator up` does so at a start."""
    from llmchain_fl.onprem.register import register_kit

    outcome = register_kit(kit)
    for state, names in (
        ("registered", outcome.registered),
        ("known already", outcome.known),
        ("unregistered", outcome.unregistered),
        ("never on the roster", [f"node {number}" for number in outcome.strangers]),
    ):
        if names:
            typer.echo(f"{state:20} {', '.join(names)}")
