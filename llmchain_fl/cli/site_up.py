"""``llmchain-fl site up``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmchain_fl.onprem import SiteSettings


def command(
    place: Annotated[Path, typer.Argument(help="The folder of a kit, or a site file (site.toml).")] = Path(),
    superlink: Annotated[
        str, typer.Option("--superlink", help="The coordinator, as HOST:PORT; with a site file alone.")
    ] = "",
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

    if place.is_dir():
        settings = _from_kit(place, bool(superlink or root_certificates or key or insecure), port)
    else:
        settings = SiteSettings(place, superlink, root_certificates, key, insecure, port)
    site_up(settings)


def _from_kit(kit: Path, more: bool, port: int) -> SiteSettings:
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.onprem.from_kit import site_of

    if more:
        raise ConfigError(
            ["a kit says itself where the coordinator is and with which keys: no options of the connection beside it"],
            remedy="leave them out, or name the site file in place of its folder",
        )
    return site_of(kit, port)
