"""``llmchain-fl serve``: a server over verified adapters, tokens for it, thresholds for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Serve verified adapters over HTTP and gRPC.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group also while it has one command."""


@app.command("up")
def up(file: Annotated[Path, typer.Argument(help="The serve file (serve.toml).")] = Path("serve.toml")) -> None:
    """Serve until SIGTERM or Ctrl-C; what waits then is answered first."""
    from llmchain_fl.extras import need

    need("serve", "llmchain-fl serve")
    from llmchain_fl.serve.settings import read_settings
    from llmchain_fl.serve.up import open_server

    def told(http: str, grpc: str) -> None:
        typer.echo(f"ready: {http}{f', gRPC {grpc}' * bool(grpc)}")

    open_server(read_settings(file), told=told).run()


@app.command("check")
def check(file: Annotated[Path, typer.Argument(help="The serve file (serve.toml).")] = Path("serve.toml")) -> None:
    """Verify the adapters of a serve file and say who may use which; nothing is loaded, no port is opened."""
    from llmchain_fl.extras import need

    need("serve", "llmchain-fl serve")
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.serve.door import open_adapters
    from llmchain_fl.serve.settings import read_settings
    from llmchain_fl.serve.tasks import check_kinds, check_thresholds

    settings = read_settings(file)
    opened = open_adapters(settings)
    check_kinds(opened)
    check_thresholds(opened, settings.adapter)
    labels = {one.verified.label for one in opened}
    for one in opened:
        one.factors()
        typer.echo(f"{one.verified.label}  {one.task.kind}  {one.base.path}  {one.verified.address}")
    wrong = [f"tenant.{name}.adapters: {label} is not served" for name, tenant in settings.tenant.items()
             for label in tenant.adapters if label not in labels]  # fmt: skip
    if wrong:
        raise ConfigError(wrong, remedy=f"there is {', '.join(sorted(labels))}")
    for name, tenant in settings.tenant.items():
        typer.echo(f"{name}: {', '.join(tenant.adapters)} ({len(tenant.tokens) + len(tenant.persons)} tokens)")


@app.command("new")
def new(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run with a finished stage.")],
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet: hub, adapter, serve file, store.")],
    statement: Annotated[Path, typer.Option("--statement", help="JSON: data, intended_use, refused_use, licence.")],
    name: Annotated[str, typer.Option("--name", help="Of the adapter.")] = "intents",
    person: Annotated[str, typer.Option("--person", help="Who gets a token, as in the training records.")] = "ann",
) -> None:
    """Publish a run's adapter into a hub of its own and write a serve file over it, with one person who may ask."""
    from llmchain_fl.cli.hub import statement_of
    from llmchain_fl.run_dir import RunDir
    from llmchain_fl.serve.new import make_server

    token = make_server(RunDir.open(run), folder, name, statement_of(statement), person)
    typer.echo(f"serve it: llmchain-fl serve up {folder / 'serve.toml'}")
    typer.echo(f"export LLMCHAIN_FL_TOKEN={token}")


@app.command("token")
def token() -> None:
    """Make a token: the first line goes to the tenant, the second into the serve file. Neither is kept."""
    from llmchain_fl.serve.tokens import new_token, token_hash

    made = new_token()
    typer.echo(made)
    typer.echo(token_hash(made))


@app.command("threshold")
def threshold(
    adapter: Annotated[Path, typer.Argument(help="A run directory, or an adapter folder.")],
    file: Annotated[str, typer.Option("--file", help="Public records with labels, such as public.csv.")],
    accuracy: Annotated[float, typer.Option("--accuracy", help="Wanted of the answers that are given.")] = 0.95,
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Which column holds what: --column text=utterance.")
    ] = None,
) -> None:
    """Find `abstain_below` on public records: the smallest probability above which answers are as right as wanted."""
    from llmchain_fl.cli.trained import find_adapter, open_trained, own_columns, task_of, told_columns
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.tasks.kind import task_kind
    from llmchain_fl.data.source import read_rows
    from llmchain_fl.evaluation.abstain import abstain_below
    from llmchain_fl.serve.tasks import SERVED

    folder = find_adapter(adapter)
    kind = task_kind(task_of(folder).kind)
    served = SERVED.get(task_of(folder).kind)
    if served is None or "abstain" not in served.gives:
        raise ConfigError([f"{adapter} is of the task {task_of(folder).kind}, no answer of which can abstain"])
    mapping = own_columns(folder) | told_columns(columns)
    rows = read_rows(file, mapping=mapping, required=kind.columns, split="test", seed=1, private=False).records
    _, task = open_trained(folder)
    answers = task.answer(rows, 1)  # type: ignore[attr-defined]
    said = [answer[0][0] != "" for answer in answers]  # where a task finds no answer, none is given
    right = (task.record_scores(task.encode(rows)) >= 1.0) & said
    choice = abstain_below(
        [answer[0][1] * is_said for answer, is_said in zip(answers, said, strict=True)], list(right), accuracy
    )
    typer.echo(f"abstain_below = {choice.threshold:.4f}")
    typer.echo(
        f"answers {choice.coverage:.1%} of {len(answers)} public records, {choice.accuracy:.1%} of them right", err=True
    )
