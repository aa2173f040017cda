"""``llmchain-fl scenarios``: what is shipped."""

from __future__ import annotations


def command() -> None:
    """List the shipped scenarios."""
    from rich.console import Console
    from rich.table import Table

    from llmchain_fl.scenario import shipped, titles

    table = Table("scenario", "what it shows", box=None, padding=(0, 2))
    for name, title in titles().items():
        table.add_row(name, title)
    console = Console()
    console.print(table)
    folder = next(iter(shipped().values())).parent
    console.print(f"\nrun one: llmchain-fl simulate NAME        the files: {folder}", highlight=False, soft_wrap=True)
