"""``llmchain-fl``: one line for each command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import logging
import os
import sys

import typer

from llmchain_fl.cli import (
    compare,
    digest,
    evaluate,
    next_stage,
    predict,
    privacy,
    report,
    scenarios,
    simulate,
    unlearn,
)
from llmchain_fl.core.printable import printable

app = typer.Typer(
    name="llmchain-fl",
    help="Federated, private and continual LoRA fine-tuning of language models, on Flower.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("simulate")(simulate.command)
app.command("scenarios")(scenarios.command)
app.command("compare")(compare.command)
app.command("predict")(predict.command)
app.command("evaluate")(evaluate.command)
app.command("report")(report.command)
app.command("digest")(digest.command)
app.command("next-stage")(next_stage.command)
app.command("unlearn")(unlearn.command)
app.command("restore")(unlearn.restore)
app.add_typer(privacy.app, name="privacy")


def main() -> None:
    """Run the command line.

    =========  ================================================================================
    exit code  the command
    =========  ================================================================================
    0          did what was asked
    2          one of our own errors, or an option that does not exist: one clear text
    3          a run whose budget ended before its plan did: all that it learned is written
    130        Ctrl-C
    =========  ================================================================================
    """
    from llmchain_fl.core.errors import LlmchainError, RunStopped

    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        app()
    except RunStopped as stop:
        typer.secho(_lines(str(stop)), err=True, fg=typer.colors.YELLOW)
        sys.exit(3)
    except LlmchainError as error:
        typer.secho(f"error: {_lines(str(error))}", err=True, fg=typer.colors.RED)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("stopped", err=True)
        sys.exit(130)


def _lines(text: str) -> str:
    """Our own line breaks, and nothing else that moves the cursor: an error may name what others chose."""
    return "\n".join(map(printable, text.split("\n")))
