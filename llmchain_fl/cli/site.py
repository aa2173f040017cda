"""``llmchain-fl site``: what a data holder does on premises. One line for each command."""

from __future__ import annotations

import typer

from llmchain_fl.cli import site_check, site_request, site_up

app = typer.Typer(help="Run a site on the premises of its data holder.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group also while it has one command."""


app.command("up")(site_up.command)
app.command("request")(site_request.command)
app.command("check")(site_check.command)
