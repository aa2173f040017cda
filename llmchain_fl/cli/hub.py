"""``llmchain-fl hub``: adapters as signed folders, published, pulled, verified, taken back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmchain_fl.core.printable import printable

if TYPE_CHECKING:
    from llmchain_fl.hub.evidence import Statement
    from llmchain_fl.hub.recompute import Check

app = typer.Typer(help="Adapters as signed folders: publish, pull, verify, take back.", no_args_is_help=True)
keys = typer.Typer(help="The own key, and the publishers that are trusted.", no_args_is_help=True)
app.add_typer(keys, name="keys")
Home = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="LLMCHAIN_FL_HUB",
        help="Where the own key, trusted publishers and what was seen of them are.",
    ),
]
HOME = Path("~/.llmchain-fl/hub")
Days = Annotated[int, typer.Option("--days", min=1, max=3650, help="For how long the new index holds.")]
DAYS = 90


@app.command("publish")
def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run with a finished stage.")],
    hub: Annotated[Path, typer.Argument(help="The hub's folder; made if it is not there.")],
    name: Annotated[str, typer.Option("--name", help="Of the adapter: lower-case letters, digits, . _ -")],
    statement: Annotated[Path, typer.Option("--statement", help="JSON: data, intended_use, refused_use, licence.")],
    base: Annotated[str, typer.Option("--base", help="The base model's folder, if not where the run had it.")] = "",
    base_name: Annotated[str, typer.Option("--base-name", help="By which others can find the base model.")] = "",
    gate: Annotated[Path | None, typer.Option("--gate", help="What `privacy audit --json` has printed.")] = None,
    days: Days = DAYS,
    home: Home = HOME,
) -> None:
    """Publish a run's adapter as the next version of NAME, with a card and the files its numbers come from."""
    from llmchain_fl.hub.publish import Offer
    from llmchain_fl.hub.publish import publish as put
    from llmchain_fl.run_dir import RunDir

    offer = Offer(RunDir.open(run), name, statement_of(statement), base, base_name, gate)
    manifest = put(hub, home.expanduser(), offer, days)
    typer.echo(f"{manifest.label} {manifest.address}")


def statement_of(file: Path) -> Statement:
    """What the publisher says in a file.

    Raises:
        ConfigError: it cannot be read, or lacks something.
    """
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.core.regular_file import read_regular
    from llmchain_fl.hub.evidence import read_statement
    from llmchain_fl.hub.layout import BOUNDS, STATEMENT

    try:
        data = read_regular(file, BOUNDS[STATEMENT])
    except OSError as error:
        remedy = "write it: docs/examples/statement.json is one"
        raise ConfigError([f"the statement {file} cannot be read: {error.strerror}"], remedy=remedy) from None
    return read_statement(data)


@app.command("pull")
def pull(
    hub: Annotated[str, typer.Argument(help="A hub's folder or address; or one adapter's folder.")],
    adapter: Annotated[str, typer.Argument(help="NAME or NAME@VERSION; the newest version without one.")] = "",
    out: Annotated[Path, typer.Option("--out", help="A folder that is not there yet.")] = Path("adapter"),
    publisher: Annotated[str, typer.Option("--publisher", help="Who must have signed it, by the name here.")] = "",
    home: Home = HOME,
) -> None:
    """Fetch one version, check everything, and only then keep it."""
    from llmchain_fl.hub.pull import pull as fetch
    from llmchain_fl.hub.pull import wanted

    verified = fetch(hub, wanted(adapter), out, home.expanduser(), datetime.now(UTC), publisher)
    typer.echo(f"{verified.label} of {verified.publisher} in {out}: signed, whole, its card computed anew")


@app.command("list")
def listed(hub: Annotated[str, typer.Argument(help="A hub's folder or address.")], home: Home = HOME) -> None:
    """Show what a hub offers, by its signed index."""
    from llmchain_fl.hub.pull import fresh_index
    from llmchain_fl.hub.source import source

    index = fresh_index(source(hub), home.expanduser(), datetime.now(UTC))
    typer.echo(f"serial {index.serial}, holds until {index.expires}")
    for name, held in sorted(index.adapters.items()):
        for number, address in sorted(held.items()):
            reason = index.revoked.get(address)
            typer.echo(f"{name}@{number} {address}" + ("" if reason is None else f" taken back: {printable(reason)}"))


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="What `hub pull` left.")],
    base: Annotated[str, typer.Option("--base", help="Also check that this is the base model it was made for.")] = "",
    home: Home = HOME,
) -> None:
    """Check signature, hashes, shapes; compute anew what of the card can be. Exit code 2: something does not hold."""
    from llmchain_fl.hub.door import verified
    from llmchain_fl.hub.recompute import recomputed
    from llmchain_fl.hub.refused import refuse
    from llmchain_fl.hub.trust import read_trust

    adapter = verified(folder, read_trust(home.expanduser()))
    typer.echo(f"{adapter.label} of {adapter.publisher}, {adapter.address}")
    typer.echo(f"  holds  {len(adapter.files)} files as signed, {len(adapter.arrays)} tensors, all finite")
    if base:
        adapter.work_on(base)
        typer.echo(f"  holds  base: {base}")
    checks = recomputed(adapter)
    for check in checks:
        typer.echo(_line(check))
    wrong = [check for check in checks if check.holds is False]
    if wrong:
        raise refuse("card", f"{wrong[0].name}: {wrong[0].words}")


def _line(check: Check) -> str:
    state = {True: "holds", False: "WRONG", None: "-    "}[check.holds]
    return f"  {state}  {check.name}: {printable(check.words)}"


@app.command("revoke")
def revoke(
    hub: Annotated[Path, typer.Argument(help="The hub's folder.")],
    adapter: Annotated[str, typer.Argument(help="NAME@VERSION.")],
    reason: Annotated[str, typer.Option("--reason", help="One line: whoever has the adapter reads it.")],
    days: Days = DAYS,
    home: Home = HOME,
) -> None:
    """Take a version back for ever."""
    from llmchain_fl.core.errors import ConfigError
    from llmchain_fl.hub.publish import revoke as take_back
    from llmchain_fl.hub.pull import wanted

    choice = wanted(adapter)
    if not choice.name or not choice.version:
        raise ConfigError([f"{adapter!r} names no version"], remedy="give NAME@VERSION")
    address = take_back(hub, home.expanduser(), choice.name, choice.version, reason, days)
    typer.echo(f"{adapter} {address} is taken back")


@app.command("renew")
def renew(hub: Annotated[Path, typer.Argument(help="The hub's folder.")], days: Days = DAYS, home: Home = HOME) -> None:
    """Sign the same index with a new date, before the old one runs out."""
    from llmchain_fl.hub.publish import renew as again

    again(hub, home.expanduser(), days)
    typer.echo(f"the index holds for {days} days from now")


@keys.command("new")
def new(home: Home = HOME) -> None:
    """Make a key where there is none, and print its public half: hand it on in person.

    It is trusted here as `self`.
    """
    from llmchain_fl.hub.trust import own_identity, trust_publisher

    public = own_identity(home.expanduser(), make=True).public
    trust_publisher(home.expanduser(), "self", public)
    typer.echo(public)


@keys.command("show")
def show(home: Home = HOME) -> None:
    """Print the public half of the own key."""
    from llmchain_fl.hub.trust import own_identity

    typer.echo(own_identity(home.expanduser()).public)


@keys.command("trust")
def trust(
    name: Annotated[str, typer.Argument(help="What the publisher is called here.")],
    key: Annotated[str, typer.Argument(help="ed25519:..., as `hub keys show` prints it.")],
    home: Home = HOME,
) -> None:
    """Trust a publisher's key; get it in person, by telephone or by letter, never from the hub."""
    from llmchain_fl.hub.trust import trust_publisher

    trust_publisher(home.expanduser(), name, key)
    typer.echo(f"{name} is trusted")


@keys.command("distrust")
def distrust(name: Annotated[str, typer.Argument(help="Of a trusted publisher.")], home: Home = HOME) -> None:
    """Take a publisher out: nothing of it is loaded any more."""
    from llmchain_fl.hub.trust import distrust_publisher

    distrust_publisher(home.expanduser(), name)
    typer.echo(f"{name} is not trusted any more")


@keys.command("list")
def known(home: Home = HOME) -> None:
    """Print the trusted publishers with their keys."""
    from llmchain_fl.hub.trust import read_trust

    for name, key in sorted(read_trust(home.expanduser()).publishers.items()):
        typer.echo(f"{name} {key}")
