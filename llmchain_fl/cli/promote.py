"""``llmchain-fl promote`` and ``llmchain-fl rollback``: which adapter a service serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmchain_fl.cli.hub import HOME, Home
from llmchain_fl.core.printable import printable

Where = Annotated[Path, typer.Argument(metavar="LINE", help="The folder of the adapters that a service serves.")]


def command(
    candidate: Annotated[Path, typer.Argument(help="The candidate's folder, as `hub pull` left it.")],
    line: Where,
    policy: Annotated[Path, typer.Option("--policy", help="TOML: public probes and bounds.")],
    base: Annotated[str, typer.Option("--base", help="The base model's folder, if not as published.")] = "",
    canary: Annotated[float, typer.Option("--canary", help="Share of persons whom it answers at first; 0: all.")] = 0.0,
    enough: Annotated[int, typer.Option("--enough", min=1, help="Votes after which the canary has passed.")] = 500,
    home: Home = HOME,
) -> None:
    """Compare a candidate with what is served, on public probes; serve it where every check passes.

    The verdict is signed and kept in LINE/verdicts, passed or not. Exit code 2: it was not promoted.
    """
    from llmchain_fl.core.errors import ConfigError, ModelError
    from llmchain_fl.hub.trust import own_identity, read_trust
    from llmchain_fl.promote.canary import RUNNING, begin, read_canary
    from llmchain_fl.promote.line import Line
    from llmchain_fl.promote.policy import read_policy
    from llmchain_fl.promote.run import promote

    place, before = home.expanduser(), Line(line).current
    running = read_canary(line)
    if (running is not None and running.state == RUNNING) or (canary and not (before and 0 < canary < 1)):
        fault = (
            f"{line}: a canary is running" if running else "--canary: a share of those whom something answers already"
        )
        raise ConfigError(
            [fault], remedy="wait for its end, or roll back and remove LINE/canary.json" if running else "0 to 1"
        )
    verdict = promote(candidate, Line(line), read_policy(policy), read_trust(place), own_identity(place), base)
    for check in verdict.checks:
        typer.echo(f"  {'passed' if check.passed else 'FAILED'}  {printable(check.name)}: {printable(check.words)}")
    if not verdict.passed:
        failed = ", ".join(printable(check.name) for check in verdict.checks if not check.passed)
        remedy = f"what was served stays; the signed verdict is in {line}/verdicts"
        raise ModelError(f"the candidate is not promoted: {failed}", remedy=remedy)
    typer.echo(f"promoted: {verdict.candidate}")
    if canary:
        typer.echo(begin(Line(line), read_trust(place), before, canary, enough).words())


def canary(line: Where) -> None:
    """Say how the canary of a line stands."""
    from llmchain_fl.promote.canary import read_canary

    state = read_canary(line)
    typer.echo(f"{line} has no canary" if state is None else printable(state.words()))


def rollback(
    line: Where,
    to: Annotated[str, typer.Argument(help="NAME@VERSION or an address; the nearest ancestor without one.")] = "",
    home: Home = HOME,
) -> None:
    """Serve an ancestor of the present adapter again; only the pointer is changed."""
    from llmchain_fl.hub.trust import read_trust
    from llmchain_fl.promote.line import Line

    typer.echo(f"served again: {Line(line).roll_back(read_trust(home.expanduser()), to)}")
