"""``llmchain-fl provision``: kits for the coordinator and the sites of a federation, from one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from llmchain_fl.onprem.federation import Federation
    from llmchain_fl.onprem.keys import Public
    from llmchain_fl.onprem.provision import Told

MAKE = "make"
Page = Annotated[Path, typer.Argument(help="The federation's page (federation.toml).")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the kits; else NAME-kits beside the page.")]


class _MakeByDefault(TyperGroup):
    """``provision federation.toml`` is ``provision make federation.toml``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See the class."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [MAKE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_MakeByDefault,
    help="Kits for coordinator and sites: `provision federation.toml`; renew, revoke and reissue them.",
    no_args_is_help=True,
)


@app.command(MAKE, hidden=True)
def make(
    page: Page = Path("federation.toml"),
    out: Out = None,
    requests: Annotated[
        list[Path] | None, typer.Option("--request", help="What a site sent (site request); repeat it.")
    ] = None,
) -> None:
    """Write the kits; again after a change of the page. No key that is there is written over."""
    from llmchain_fl.cli.apps import app_root
    from llmchain_fl.onprem.certificates import utc_now
    from llmchain_fl.onprem.keys import read_request
    from llmchain_fl.onprem.provision import provision

    federation = _read(page)
    sent = [read_request(file) for file in requests or []]
    root = _root(federation, out)
    _say(root, federation, provision(federation, root, app_root(), sent, utc_now()))


@app.command("reissue")
def reissue(
    name: Annotated[str, typer.Argument(help="The site.")],
    page: Annotated[Path, typer.Option("--page", help="The federation's page.")] = Path("federation.toml"),
    out: Out = None,
    request: Annotated[Path | None, typer.Option("--request", help="The site's new request.")] = None,
) -> None:
    """New keys for a site; the old ones are revoked. Its name, and so its ledger, stay."""
    from llmchain_fl.cli.apps import app_root
    from llmchain_fl.onprem import provision as library
    from llmchain_fl.onprem.certificates import utc_now
    from llmchain_fl.onprem.keys import read_request

    federation = _read(page)
    sent: Public | None = read_request(request) if request else None
    root = _root(federation, out)
    _say(root, federation, library.reissue(federation, root, app_root(), name, sent, utc_now()))


@app.command("renew")
def renew(
    kits: Annotated[Path, typer.Argument(help="The folder of the kits.")],
    days: Annotated[int, typer.Option("--days", min=1, max=825, help="Validity of the new certificate.")] = 365,
    authority: Annotated[
        bool, typer.Option("--authority", help="Also the authority's own certificate, with the key that it has.")
    ] = False,
) -> None:
    """A new certificate for the coordinator. Sites do nothing; with --authority they get the new ca.crt in time."""
    from llmchain_fl.onprem import provision as library
    from llmchain_fl.onprem.certificates import read_certificate, utc_now

    for file in library.renew(kits, utc_now(), days, authority):
        until = f", until {read_certificate(file).not_valid_after_utc.date()}" if file.suffix == ".crt" else ""
        typer.echo(f"written: {file}{until}")
    typer.echo("restart the coordinator to use it (llmchain-fl coordinator up)")


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="The site.")],
    kits: Annotated[Path, typer.Argument(help="The folder of the kits.")],
) -> None:
    """End a site's keys, for ever. A lost key or a site that leaves; `reissue` gives it others."""
    from llmchain_fl.onprem import provision as library
    from llmchain_fl.onprem.certificates import utc_now

    place = library.revoke(kits, name, utc_now())
    typer.echo(f"{name} is revoked" + (f"; its kit is in {place}" if place else ""))
    typer.echo("tell the coordinator that is up: llmchain-fl coordinator register KIT (a start does the same)")
    typer.echo(f"tell the other sites to take {name} out of [secure.peers] of their site files")


def _read(page: Path) -> Federation:
    from llmchain_fl.cli.apps import tool
    from llmchain_fl.onprem.federation import read_federation

    return read_federation(page, tool("client.site").Site)


def _root(federation: Federation, out: Path | None) -> Path:
    return out if out is not None else federation.folder / f"{federation.page.name}-kits"


def _say(root: Path, federation: Federation, summary: Told) -> None:
    from llmchain_fl.onprem.certificates import read_certificate
    from llmchain_fl.onprem.keys import fingerprint
    from llmchain_fl.onprem.kit import AUTHORITY, SERVER_CERTIFICATE
    from llmchain_fl.onprem.kits import Tree

    tree = Tree(root)
    for kind, file in (("server", tree.coordinator / SERVER_CERTIFICATE), ("authority", tree.authority / AUTHORITY)):
        typer.echo(f"{kind:10} certificate until {read_certificate(file).not_valid_after_utc.date()}")
    typer.echo(f"{'kits':10} {tree.coordinator}")
    for name in summary.written:
        typer.echo(f"{'':10} {tree.site(name)}")
    if summary.roster is not None:
        typer.echo(f"{'telephone':10} {fingerprint(summary.roster.identities())}: every site must read the same")
        made = [name for name in summary.written if summary.roster.sites[name].origin == "made"]
        if made and federation.config.secure.sum:
            typer.echo(
                f"! the keys of {', '.join(made)} were made here: whoever has this folder could stand in for them in a "
                'secure sum. Write keys = "requested" where sites need not trust you'
            )
    for note in summary.notes:
        typer.echo(f"! {note}")
