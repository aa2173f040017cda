"""``llmchain-fl tune SCENARIO --try KEY=A,B``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer


def command(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario or a .toml file.")],
    tries: Annotated[list[str], typer.Option("--try", help="A setting and its values: --try train.lr=0.01,0.03.")],
    out: Annotated[Path, typer.Option("--out", help="TOML file for the best settings.")],
    budget: Annotated[int, typer.Option("--budget", min=1, help="Runs at most; of a larger grid a random part.")] = 10,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting of every run.")] = None,
    public: Annotated[list[str] | None, typer.Option("--public", help="A source that is nobody's records.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Draws the part of the grid.")] = 1,
) -> None:
    """Search for settings on generated or public records; private ones are refused: each run on them is charged."""
    from llmchain_fl.atomic_file import atomic_write
    from llmchain_fl.core.errors import ConfigError, RunError
    from llmchain_fl.tuning.search import overlay, tune

    if out.exists():
        raise ConfigError([f"--out {out} is there already"], remedy="name a new file")
    with tempfile.TemporaryDirectory(prefix="llmchain-fl-tune-") as place:
        rest = {"settings": settings or [], "public": public or [], "seed": seed}
        trials = tune(scenario, tries, budget, place=Path(place), say=lambda line: typer.echo(line, err=True), **rest)  # type: ignore[arg-type]
    best = trials[0]
    if best.score != best.score:
        raise RunError("no run ended with a score", remedy="give the scenario public test records (data.test)")
    atomic_write(out, overlay(best.choice).encode())
    typer.echo(" ".join(f"--set {one}" for one in best.choice))
    typer.echo(f"{best.score:.4f} on data.test, which was chosen on: judge it on other records; {out}", err=True)
