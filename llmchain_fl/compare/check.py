"""Every cell's configuration is read and checked before the first run.

| what is wrong | then |
|---|---|
| a setting or a value that does not exist, in any cell | ``ConfigError`` with all of them; nothing starts |
| settings that do not go together in some cells | these are refused, each with its reason; the others run |
| the same in every cell | ``ConfigError``: nothing is left to run |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmchain_fl.compare.outcome import Outcome, missed
from llmchain_fl.compare.plan import Cell, Comparison
from llmchain_fl.config.cross import cross_faults
from llmchain_fl.config.read import apply_settings, parse, read_config
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.core.data.source import path_of
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.scenario import find_scenario


@dataclass
class Checked:
    """Cells that can run with their configurations by slug, and those that cannot."""

    cells: list[Cell] = field(default_factory=list)
    configs: dict[str, RunConfig] = field(default_factory=dict)
    refused: list[Outcome] = field(default_factory=list)


def check_cells(comparison: Comparison, cells: Sequence[Cell]) -> Checked:
    """Read all of them.

    Raises:
        ConfigError: faults that are no matter of combination, or nothing left to run.
    """
    checked, faults = Checked(), dict[str, list[Cell]]()
    for cell in cells:
        try:
            checked.configs[cell.slug] = read_config(find_scenario(comparison.scenario), cell.settings)
        except ConfigError as error:
            if _only_together(comparison, cell):
                checked.refused.append(missed(cell, "refused", "; ".join(error.faults)))
                continue
            for fault in error.faults:
                faults.setdefault(fault, []).append(cell)
        else:
            checked.cells.append(cell)
    if faults:
        raise ConfigError([_with_cells(fault, cells_of, len(cells)) for fault, cells_of in faults.items()])
    if not checked.cells:
        raise all_refused(checked.refused)
    return checked


def all_refused(refused: Sequence[Outcome]) -> ConfigError:
    """The error of a comparison in which nothing can run."""
    reasons = [f"every cell is refused: {reason}" for reason in dict.fromkeys(o.reason for o in refused)]
    return ConfigError(reasons or ["no cell is left to run"])


def lacking(checked: Checked) -> list[str]:
    """Files that the cells name and that are not here, sorted."""
    named: set[str] = set()
    for config in checked.configs.values():
        data = config.data
        named |= {data.train, data.test, data.dev, config.continual.public}
        named |= {source for s in config.stage for source in (s.train, s.test, s.dev, s.public)}
        named |= {config.task.labels} if isinstance(config.task.labels, str) else set()
    paths = {path_of(name) for name in named if name and "{" not in name}
    return sorted(str(path) for path in paths if path is not None and not path.exists())


def _only_together(comparison: Comparison, cell: Cell) -> bool:
    """Whether each setting is right by itself and only their combination is not."""
    try:
        tree = read_toml(find_scenario(comparison.scenario))
        return bool(cross_faults(parse(apply_settings(tree, cell.settings))))
    except ConfigError:
        return False


def _with_cells(fault: str, cells: Sequence[Cell], of: int) -> str:
    """The fault, and where it is unless it is everywhere."""
    if len(cells) == of:
        return fault
    more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
    return f"{fault} (in {cells[0].title}{more})"
