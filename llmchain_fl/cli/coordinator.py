"""``llmchain-fl coordinator``: what the coordinator of a federation does. One line for each command."""

from __future__ import annotations

import typer

from llmchain_fl.cli import coordinator_register, coordinator_run, coordinator_up

app = typer.Typer(help="Run the coordinator of a federation.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group also while it has one command."""


app.command("up")(coordinator_up.command)
app.command("register")(coordinator_register.command)
app.command("run")(coordinator_run.run)
app.command("status")(coordinator_run.status)
app.command("stop")(coordinator_run.stop)
