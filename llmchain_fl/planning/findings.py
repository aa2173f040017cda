"""What a check of a scenario has found, one line each; and how others say faults, turned into such lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar

from llmchain_fl.core.errors import ConfigError, LlmchainError

P = ParamSpec("P")
T = TypeVar("T")
Level = Literal["fault", "warning", "fact"]


@dataclass(frozen=True)
class Finding:
    """One line of a check.

    Attributes:
        level: a ``fault`` keeps the run from starting, a ``warning`` is worth a look, a ``fact`` is good to know.
        about: what it is about: configuration, records, texts, model, privacy.
        text: what was found; never a word of a record.
        remedy: what can be done about it.
    """

    level: Level
    about: str
    text: str
    remedy: str = ""


class Findings(list[Finding]):
    """All of a check."""

    def fact(self, about: str, text: str) -> None:
        """Add what is good to know."""
        self.append(Finding("fact", about, text))

    def warn(self, about: str, text: str, remedy: str = "") -> None:
        """Add what is worth a look."""
        self.append(Finding("warning", about, text, remedy))

    def fault(self, about: str, text: str, remedy: str = "") -> None:
        """Add what keeps the run from starting, once."""
        finding = Finding("fault", about, text, remedy)
        if finding not in self:
            self.append(finding)

    def attempt(self, about: str, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T | None:
        """What ``call`` gives; None where it raises one of our errors, which become faults."""
        try:
            return call(*args, **named)
        except ConfigError as error:
            for line in error.faults:
                self.fault(about, line, "" if "nothing was started" in error.remedy else error.remedy)
        except LlmchainError as error:
            self.fault(about, str(error).partition("\n  -> ")[0], error.remedy)
        return None

    @property
    def faulty(self) -> bool:
        """Whether something keeps the run from starting."""
        return any(one.level == "fault" for one in self)
