"""``llmchain-fl coordinator up``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmchain_fl.core.errors import ConfigError

USUAL = ("127.0.0.1", 8000)


def command(
    kit: Annotated[Path | None, typer.Argument(help="The folder of the coordinator's kit; else options.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all.")] = USUAL[0],
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = USUAL[1],
    name: Annotated[str, typer.Option("--name", help="A name of this machine that stands in its certificate.")] = "",
    ca: Annotated[Path | None, typer.Option("--ca", help="Certificate of the CA.")] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="This server's certificate.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Its private key.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Without TLS: for tries on one machine only.")] = False,
    any_site: Annotated[
        bool, typer.Option("--any-site", help="Let sites connect whose key is not registered.")
    ] = False,
    database: Annotated[
        Path | None, typer.Option("--database", help="File for runs and keys; else they are lost when it ends.")
    ] = None,
) -> None:
    """Run the coordinator until Ctrl-C: a SuperLink, and an executor that plays runs in a process ready for them."""
    from llmchain_fl.onprem import CoordinatorSettings, coordinator_up

    if kit is not None:
        if (host, port, name, ca, certificate, key, insecure, any_site) != (*USUAL, "", None, None, None, False, False):
            raise _both()
        from llmchain_fl.onprem.from_kit import coordinator_of

        return coordinator_up(coordinator_of(kit, database))
    return coordinator_up(CoordinatorSettings(host, port, name, ca, certificate, key, insecure, not any_site, database))


def _both() -> ConfigError:
    from llmchain_fl.core.errors import ConfigError

    return ConfigError(
        ["a kit says itself where it listens and with which keys: no options but --database beside it"],
        remedy="leave them out; what a kit says follows from federation.toml (llmchain-fl provision)",
    )
