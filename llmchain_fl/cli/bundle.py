"""``llmchain-fl bundle --list``: the files that run at a site, one a line, for whoever reviews them."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def command(
    listed: Annotated[bool, typer.Option("--list", help="One line a file: SHA-256, lines, name.")] = False,
    server: Annotated[bool, typer.Option("--server", help="The files of the server instead of a site's.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Say which files of this installation run at a site: exactly these, and no other of this project."""
    from llmchain_fl.bundle import SERVER, SITE, parts
    from llmchain_fl.cli.apps import app_root

    files = parts(app_root(), SERVER if server else SITE)
    if as_json:
        typer.echo(json.dumps([vars(part) for part in files], indent=1))
        return
    if listed:
        for part in files:
            typer.echo(f"{part.sha256}  {part.lines:5}  {part.path}{'  by name' * part.by_name}")
    where, who = ("the server", "its configuration") if server else ("a site", "a task or the site's own file")
    always, named = ([part for part in files if part.by_name is by_name] for by_name in (False, True))
    typer.echo(f"{len(always)} files, {sum(part.lines for part in always):,} lines run at {where}")
    typer.echo(f"{len(named)} files, {sum(part.lines for part in named):,} lines more where {who} names them")
