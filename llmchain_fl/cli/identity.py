"""``llmchain-fl identity``: the line by which the other sites of a secure sum know this one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

BARE = re.compile(r"[A-Za-z0-9_-]+")
"""Names that TOML takes without quotes."""


def command(site: Annotated[Path, typer.Argument(help="A site file (site.toml).")]) -> None:
    """Print this site's line for [secure.peers] of the other sites' files; its key is made where there is none.

    Hand the line over in person, by telephone or by letter: never through the server of the federation.
    """
    from llmchain_fl.cli.privacy_ledger import app_module
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.privacy.durable import make_folder
    from llmchain_fl.core.secure.identity import make_identity

    settings = app_module("client.site").read_site(site)
    file: Path = settings.identity_file
    fresh = not file.exists()
    try:
        make_folder(file.absolute().parent)
        identity = make_identity(file)
    except OSError as fault:
        message = f"{file}: the site's key cannot be written or read (errno {fault.errno})"
        raise ConfigError([message], remedy="free the disk, or set secure.identity") from None
    typer.echo(line(settings.name, identity.public))
    state = "made a new private key" if fresh else "the private key is"
    typer.echo(f"{state} in {file}: it stays at this site; whoever has it can take this site's place", err=True)


def line(name: str, public: str) -> str:
    """``hospital-a = "ed25519:..."``, as TOML reads it."""
    return f'{name if BARE.fullmatch(name) else chr(34) + name + chr(34)} = "{public}"'
