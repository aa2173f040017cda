"""``llmchain-fl coordinator up``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen on.")] = 8000,
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

    coordinator_up(CoordinatorSettings(host, port, name, ca, certificate, key, insecure, not any_site, database))
