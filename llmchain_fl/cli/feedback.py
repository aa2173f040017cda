"""``llmchain-fl feedback``: what a site does with the feedback of its people."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmchain_fl.feedback.store import Store

app = typer.Typer(help="Feedback at the site: review, editions, consent, annotators.", no_args_is_help=True)
_STORE = typer.Argument(help="The store, as the serve file names it (feedback.store).")
_TASK = typer.Option("--task", help="Kind of task whose feedback it is.")


def _open(path: Path) -> Store:
    """A store that is there; what broke off before is made good."""
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.feedback.edition import settle
    from llmchain_fl.feedback.store import Store

    if not path.is_file():
        raise ConfigError([f"there is no feedback store {path}"], remedy="name the file that the serve file names")
    store = Store(path)
    settle(store)
    return store


@app.command("status")
def status(store: Annotated[Path, _STORE]) -> None:
    """What waits and what is frozen; votes a day, for this site's own monitor. Counts of this site: never send them."""
    from llmchain_fl.core.printable import printable
    from llmchain_fl.feedback.record import STATES

    opened = _open(store)
    for state in STATES:
        typer.echo(f"{state:9} {len(opened.records('state = ? AND edition = 0', (state,)))}")
    typer.echo(f"frozen    {len(opened.records('edition > 0'))}")
    for day, model, ups, downs in opened.votes():
        typer.echo(f"{day}  {printable(model)}  up {ups}  down {downs}")


@app.command("review")
def review(store: Annotated[Path, _STORE]) -> None:
    """Decide record by record what may be trained on."""
    from llmchain_fl.feedback import review as reviewing

    counts = reviewing.review(_open(store), time.time(), lambda question: str(typer.prompt(question)), typer.echo)
    typer.echo(", ".join(f"{count} {decision}" for decision, count in counts.items()))


@app.command("correct")
def correct(
    text: Annotated[str, typer.Argument(help="What is asked.")],
    label: Annotated[str, typer.Argument(help="What would be the right answer.")],
    server: Annotated[str, typer.Option("--server", help="Its address.")] = "http://127.0.0.1:8080",
    token: Annotated[str, typer.Option("--token", envvar="LLMCHAIN_FL_TOKEN", help="Of the person.")] = "",
    agree: Annotated[
        str, typer.Option("--agree", help="Agree to training: which version of the text the person has read.")
    ] = "",
) -> None:
    """Ask a server, and tell it what would have been right."""
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.printable import printable
    from llmchain_fl.feedback.teller import Teller

    if not token:
        raise ConfigError(["no token"], remedy="set LLMCHAIN_FL_TOKEN to what the server's owner gave you")
    teller = Teller(server, token)
    if agree:
        teller.agree(agree)
    answer = teller.ask([text])
    teller.correct(answer, 0, text, label)
    typer.echo(
        f"{printable(str(answer['model']))} answered {printable(str(answer['results'][0]['label']))}; it is kept"
    )


@app.command("edition")
def edition(
    store: Annotated[Path, _STORE],
    name: Annotated[str, typer.Argument(help="Of the edition, such as 2026-12.")],
    model: Annotated[str, typer.Option("--model", help="Name of the adapter, without its version.")],
    out: Annotated[Path, typer.Option("--out", help="File of the edition (.jsonl); a stage reads it as its records.")],
    task: Annotated[str | None, _TASK] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Adapter folder or run with the public label list.")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Most records of one person.")] = 20,
    min_age_days: Annotated[float, typer.Option("--min-age-days", min=0, help="Younger records stay out.")] = 0.0,
    unreviewed: Annotated[bool, typer.Option("--unreviewed", help="Also what nobody has reviewed.")] = False,
    with_up: Annotated[bool, typer.Option("--with-up", help="Answers that were found good as targets.")] = False,
) -> None:
    """Freeze what may be trained on into a file; the ledger charges it as it charges any records."""
    from llmchain_fl.cli.trained import find_adapter, task_of
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.feedback.edition import freeze
    from llmchain_fl.feedback.quarantine import Rules
    from llmchain_fl.feedback.record import COLUMNS

    if out.suffix != ".jsonl":
        raise ConfigError([f"--out {out}: an edition is a .jsonl file"])
    known = frozenset(task_of(find_adapter(labels)).labels) if labels is not None else frozenset()
    rules = Rules(most=most, min_age_s=min_age_days * 86_400, reviewed=not unreviewed, with_up=with_up, labels=known)
    frozen = freeze(_open(store), name, out, task or next(iter(COLUMNS)), model, rules, time.time())
    typer.echo(f"{frozen.name}: {frozen.rows} records of {frozen.persons} persons in {frozen.file}")
    for reason, count in frozen.left_out.items():
        typer.echo(f"  {count} left out: {reason}", err=True)


@app.command("withdraw")
def withdraw(
    store: Annotated[Path, _STORE],
    tenant: Annotated[str, typer.Argument(help="Whose person it is.")],
    person: Annotated[str, typer.Argument(help="Who takes consent back.")],
) -> None:
    """Delete a person's records and write frozen editions without them. Released rounds stay charged."""
    from llmchain_fl.feedback import edition as editions

    deleted = editions.withdraw(_open(store), tenant, person)
    typer.echo(f"{deleted} records deleted; rounds that were released stay charged (docs/unlearning.md)")


@app.command("export")
def export(
    store: Annotated[Path, _STORE],
    out: Annotated[Path, typer.Argument(help="A new file.")],
    form: Annotated[str, typer.Option("--format", help="label-studio or argilla.")] = "label-studio",
) -> None:
    """Write what waits for review for annotators; without persons. The file is this site's, for its owner alone."""
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.privacy.durable import replace
    from llmchain_fl.feedback.exchange import FORMATS
    from llmchain_fl.feedback.record import PENDING

    if form not in FORMATS or out.exists():
        fault = f"{out} is there already" if form in FORMATS else f"--format {form!r} is not known"
        raise ConfigError([fault], remedy=f"a new file; formats: {', '.join(FORMATS)}")
    records = _open(store).records("state = ? AND edition = 0", (PENDING,))
    replace(out.absolute(), FORMATS[form].out(records).encode("utf-8", "replace"))
    typer.echo(f"{len(records)} records in {out}")


@app.command("import")
def take_in(
    store: Annotated[Path, _STORE],
    file: Annotated[Path, typer.Argument(help="What the annotators' tool has exported.")],
    form: Annotated[str, typer.Option("--format", help="label-studio or argilla.")] = "label-studio",
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Adapter folder or run with the public label list.")
    ] = None,
) -> None:
    """Take annotators' decisions in; an empty target rejects its record."""
    from llmchain_fl.cli.trained import find_adapter, task_of
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.regular_file import read_regular
    from llmchain_fl.feedback.exchange import FORMATS, MOST_BYTES, take_back

    if form not in FORMATS:
        raise ConfigError([f"--format {form!r} is not known"], remedy=f"formats: {', '.join(FORMATS)}")
    known = frozenset(task_of(find_adapter(labels)).labels) if labels is not None else frozenset()
    try:
        text = read_regular(file, MOST_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        text = None
    if text is None:
        raise ConfigError([f"{file} cannot be read as UTF-8 text"], remedy="give the tool's export")
    done, left = take_back(_open(store), text, form, known)
    typer.echo(f"{done} decided, {left} left alone")
