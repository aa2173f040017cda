"""``llmchain-fl``: one line for each command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from llmchain_fl import __version__
from llmchain_fl.cli import (
    audit_log,
    bundle,
    check,
    compare,
    coordinator,
    digest,
    evaluate,
    evidence,
    export,
    extend,
    feedback,
    hub,
    identity,
    label,
    loop,
    monitor,
    new_base,
    next_stage,
    predict,
    privacy,
    promote,
    provision,
    report,
    scenarios,
    serve,
    simulate,
    site,
    track,
    tune,
    unlearn,
)
from llmchain_fl.cli.verbosity import begin_log, set_level
from llmchain_fl.core.printable import printable

app = typer.Typer(
    name="llmchain-fl",
    help="Federated, private and continual LoRA fine-tuning of language models, on Flower.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("simulate")(simulate.command)
app.command("check")(check.command)
app.command("scenarios")(scenarios.command)
app.command("compare")(compare.command)
app.command("predict")(predict.command)
app.command("evaluate")(evaluate.command)
app.command("report")(report.command)
app.command("digest")(digest.command)
app.command("bundle")(bundle.command)
app.command("identity")(identity.command)
app.command("extend")(extend.command)
app.command("label")(label.command)
app.command("new-base")(new_base.command)
app.command("next-stage")(next_stage.command)
app.command("unlearn")(unlearn.command)
app.command("restore")(unlearn.restore)
app.command("evidence")(evidence.command)
app.command("sbom")(evidence.bill)
app.command("export")(export.command)
app.command("loop")(loop.command)
app.command("promote")(promote.command)
app.command("rollback")(promote.rollback)
app.command("canary")(promote.canary)
app.command("monitor")(monitor.command)
app.command("track")(track.command)
app.command("tune")(tune.command)
app.add_typer(audit_log.app, name="audit-log")
app.add_typer(privacy.app, name="privacy")
app.add_typer(provision.app, name="provision")
app.add_typer(site.app, name="site")
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(serve.app, name="serve")
app.add_typer(feedback.app, name="feedback")
app.add_typer(hub.app, name="hub")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"llmchain-fl {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but errors and what a command is asked for.")
    ] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Say more; -vv everything that is logged.")
    ] = 0,
) -> None:
    """Options of every command; they stand before its name."""
    set_level(quiet=quiet, verbose=verbose)


def main() -> None:
    """Run the command line.

    =========  ================================================================================
    exit code  the command
    =========  ================================================================================
    0          did what was asked
    2          bad input, or a fault of the outside world: one clear text, never a traceback
    3          a run whose budget ended before its plan did: all that it learned is written
    130        Ctrl-C
    =========  ================================================================================
    """
    from llmchain_fl.core.errors import LlmchainError
    from llmchain_fl.run_ends import RunStopped

    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    begin_log()
    try:
        app()
    except RunStopped as stop:
        typer.secho(_lines(str(stop)), err=True, fg=typer.colors.YELLOW)
        sys.exit(3)
    except LlmchainError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        typer.secho("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        from llmchain_fl.cli.faults import full_text

        _fail(full_text(error))


def _fail(text: str) -> None:
    typer.secho(f"error: {_lines(text)}", err=True, fg=typer.colors.RED)
    sys.exit(2)


def _lines(text: str) -> str:
    """Our own line breaks, and nothing else that moves the cursor: an error may name what others chose."""
    return "\n".join(map(printable, text.split("\n")))


if __name__ == "__main__":
    main()
