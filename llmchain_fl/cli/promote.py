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
    home: Home = HOME,
) -> None:
    """Compare a candidate with what is served, on public probes; serve it where every check passes.

    The verdict is signed and kept in LINE/verdicts, passed or not. Exit code 2: it was not promoted.
    """
    from llmchain_fl.core.errors import ModelError
    from llmchain_fl.hub.trust import own_identity, read_trust
    from llmchain_fl.promote.line import Line
    from llmchain_fl.promote.policy import read_policy
    from llmchain_fl.promote.run import promote

    place = home.expanduser()
    found = promote(candidate, Line(line), read_policy(policy), read_trust(place), own_identity(place), base)
    for check in found.checks:
        typer.echo(f"  {'passed' if check.passed else 'FAILED'}  {printable(check.name)}: {printable(check.words)}")
    if not found.passed:
        failed = ", ".join(printable(check.name) for check in found.checks if not check.passed)
        remedy = f"what was served stays; the signed verdict is in {line}/verdicts"
        raise ModelError(f"the candidate is not promoted: {failed}", remedy=remedy)
    typer.echo(f"promoted: {found.candidate}")


def rollback(
    line: Where,
    to: Annotated[str, typer.Argument(help="NAME@VERSION or an address; the nearest ancestor without one.")] = "",
    home: Home = HOME,
) -> None:
    """Serve an ancestor of the present adapter again; only the pointer is changed."""
    from llmchain_fl.hub.trust import read_trust
    from llmchain_fl.promote.line import Line

    typer.echo(f"served again: {Line(line).roll_back(read_trust(home.expanduser()), to)}")
