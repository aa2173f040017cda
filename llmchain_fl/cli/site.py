"""``llmchain-fl site``: what an engineer of a site types. One line a command."""

from __future__ import annotations

import typer

from llmchain_fl.cli import site_check, site_request

app = typer.Typer(help="At a site: make keys, check before joining.", no_args_is_help=True)

app.command("request")(site_request.command)
app.command("check")(site_check.command)
