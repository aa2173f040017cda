"""``llmchain-fl site up``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    site: Annotated[Path, typer.Argument(help="The site file (site.toml).")],
    superlink: Annotated[str, typer.Option("--superlink", help="The coordinator, as HOST:PORT.")],
    root_certificates: Annotated[
        Path | None, typer.Option("--root-certificates", help="CA file that came from the coordinator by hand.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="This site's private key, registered there.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Without TLS: for tries on one machine only.")] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port of this machine for the two processes; 0: any.")
    ] = 0,
) -> None:
    """Run this site until Ctrl-C: a SuperNode, and the site's own executor, which never runs the server's code."""
    from llmchain_fl.onprem import SiteSettings, site_up

    site_up(SiteSettings(site, superlink, root_certificates, key, insecure, port))
