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
    """Play one turn from service to service over made-up users, or (`medical-questions`) answers with their passage.

    Exit code 2: the gate did not promote what was learned, or no threshold makes answers right as often as asked.
    """
    from llmchain_fl.core.errors import ModelError
    from llmchain_fl.extras import need
    from llmchain_fl.loop.settings import loop_tree, read_loop
    from llmchain_fl.run_dir import fresh

    need("serve", "llmchain-fl loop")
    if "answers" in loop_tree(name, settings or []):
        _answers(name, settings or [], out or fresh(Path("runs"), Path(name).stem))
        return
    spec = read_loop(name, settings or [])
    if spec.loop.passages:
        need("retrieval", "loop.passages")
    from llmchain_fl.loop.turn import play
    from llmchain_fl.report.wording import epsilon_text

    folder = out or fresh(Path("runs"), Path(name).stem)
    result = play(spec, folder, typer.echo)
    talk = result.talk
    typer.echo(
        f"\n{talk.asked} messages of users: {talk.right} answered rightly, {talk.abstained} not answered for sure; "
        f"{talk.shown} times passages were shown, {talk.helped} times one of the right topic was among them"
    )
    epsilon = epsilon_text(result.epsilon, result.terms)
    typer.echo(f"learned from {result.records} records of {result.persons} persons, epsilon {epsilon}")
    typer.echo(
        f"held-out messages answered rightly: {result.before:.1%} before, {result.after:.1%} after "
        f"({100 * result.gain:+.1f} +- {100 * result.margin:.1f} points, {result.held_out} messages)"
    )
    if not result.promoted:
        message = f"what was learned is not promoted: {', '.join(result.failed)}"
        raise ModelError(message, remedy=f"the signed verdict is in {folder / 'line' / 'verdicts'}")
    typer.echo(f"promoted; every step is in {folder / 'loop.jsonl'}")


def _answers(name: str, settings: list[str], folder: Path) -> None:
    from llmchain_fl.extras import need
    from llmchain_fl.loop.answers import play, read_answers

    need("retrieval", "answers.passages")
    outcome, token = play(read_answers(name, settings), folder, typer.echo)
    typer.echo(
        f"\n{outcome.answerable} questions that a passage answers: {outcome.right} answered rightly, "
        f"{outcome.abstained_answerable} not at all; {outcome.unanswerable} that none answers: "
        f"{outcome.abstained_unanswerable} not answered; right of all {outcome.answered} answers: "
        f"{outcome.right / max(1, outcome.answered):.1%}"
    )
    typer.echo(f"serve it: llmchain-fl serve up {folder / 'desk' / 'serve.toml'}")
    typer.echo(f"export LLMCHAIN_FL_TOKEN={token}")
