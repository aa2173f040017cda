"""``llmchain-fl site request``: a site makes its own keys; only their public halves travel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="The site's name, the same for its whole life.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where the kit will lie; else a folder of the site's name.")
    ] = None,
) -> None:
    """Make this site's keys and write NAME.request.json, which goes to the coordinator. Asked again: the same keys."""
    import re

    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.section import NAME
    from llmchain_fl.onprem.files import own_folder
    from llmchain_fl.onprem.keys import NODE_KEY, make_keys, read_keys, write_request

    if not re.fullmatch(NAME, name):
        raise ConfigError(
            [f"{name!r} is no name of a site"], remedy="letters, digits, dot, dash and underscore, at most 64"
        )
    place = own_folder(folder or Path(name))
    fresh = not (place / NODE_KEY).exists()
    public = make_keys(place, name) if fresh else read_keys(place, name)
    typer.echo(f"{'made' if fresh else 'there already'}: {place / 'keys'} (it stays at this site)")
    typer.echo(f"send to the coordinator: {write_request(place, name)}")
    typer.echo(f"read it out to the other sites by telephone: {public.identity}")
