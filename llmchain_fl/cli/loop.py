"""``llmchain-fl loop [NAME]``: serve, take corrections, learn from them privately, promote; on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="A shipped loop, or a .toml file.")] = "customer-service",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set loop.count=50 (repeat it).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default runs/NAME-N.")] = None,
) -> None:
    """Play one turn from service to service over made-up users.

    Exit code 2: the gate did not promote what was learned.
    """
    from llmchain_fl.core.errors import ModelError
    from llmchain_fl.extras import need
    from llmchain_fl.loop.settings import read_loop
    from llmchain_fl.run_dir import fresh

    need("serve", "llmchain-fl loop")
    told = read_loop(name, settings or [])
    if told.loop.passages:
        need("retrieval", "loop.passages")
    from llmchain_fl.loop.turn import play
    from llmchain_fl.report.wording import epsilon_text

    folder = out or fresh(Path("runs"), Path(name).stem)
    found = play(told, folder, typer.echo)
    talk = found.talk
    typer.echo(
        f"\n{talk.asked} messages of users: {talk.right} answered rightly, {talk.abstained} not answered for sure; "
        f"{talk.shown} times passages were shown, {talk.helped} times one of the right topic was among them"
    )
    epsilon = epsilon_text(found.epsilon, found.terms)
    typer.echo(f"learned from {found.records} records of {found.persons} persons, epsilon {epsilon}")
    typer.echo(
        f"held-out messages answered rightly: {found.before:.1%} before, {found.after:.1%} after "
        f"({100 * found.gain:+.1f} +- {100 * found.margin:.1f} points, {found.held_out} messages)"
    )
    if not found.promoted:
        message = f"what was learned is not promoted: {', '.join(found.failed)}"
        raise ModelError(message, remedy=f"the signed verdict is in {folder / 'line' / 'verdicts'}")
    typer.echo(f"promoted; every step is in {folder / 'loop.jsonl'}")
