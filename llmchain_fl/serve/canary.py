"""A canary in the server: who is answered by which of two adapters, what feedback says of them, and its end.

While it runs, a text to be classified goes through both adapters (one more row), and answers on which they differ carry
``ask``: a vote there tells them apart, another one tells nothing. When feedback comes the other adapter is asked again,
on the input that came back with it, so that no text is kept in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmchain_fl.core.errors import ConfigError, LlmchainError
from llmchain_fl.hub.trust import read_trust
from llmchain_fl.promote.canary import RUNNING, STOPPED, Canary, read_canary, write_canary
from llmchain_fl.promote.line import Line
from llmchain_fl.promote.votes import vote
from llmchain_fl.serve.refusals import ApiError

if TYPE_CHECKING:
    from llmchain_fl.serve.answer import Answer
    from llmchain_fl.serve.bodies import FeedbackBody
    from llmchain_fl.serve.call import Call
    from llmchain_fl.serve.served import Opened, Served
    from llmchain_fl.serve.service import Service
    from llmchain_fl.serve.tenants import Caller

log = logging.getLogger("llmchain_fl.serve")


@dataclass
class Arms:
    """Both adapters of a line's canary, while a server runs. One server writes; it is the only one of its line."""

    line: Path
    home: Path
    canary: Canary
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @staticmethod
    def open(line: str, home: str, opened: Sequence[Opened]) -> Arms | None:
        """Of a serve file's ``canary.line``; None where no canary was begun there.

        Raises:
            ConfigError: an adapter of it is not served.
            RunError: its file is damaged.
        """
        canary = read_canary(Path(line))
        if canary is None:
            return None
        there = {one.verified.address: one.verified.label for one in opened}
        missing = [
            f"canary: {label} is not served"
            for label, address in ((canary.candidate_label, canary.candidate), (canary.current_label, canary.current))
            if there.get(address) != label
        ]
        if missing:
            raise ConfigError(missing, remedy=f"name the folders of both under [[adapter]]: {line}/adapters/...")
        return Arms(Path(line), Path(home), canary)

    def label(self, caller: Caller, label: str) -> str:
        """Which adapter answers a caller who would be answered by ``label``."""
        by_candidate = label == self.canary.current_label and self.canary.by_candidate(_unit(caller))
        return self.canary.candidate_label if by_candidate else label

    def other(self, served: Served) -> str | None:
        """The label of the other arm, while it runs; None: this adapter is no arm."""
        labels = (self.canary.candidate_label, self.canary.current_label)
        if self.canary.state != RUNNING or served.label not in labels:
            return None
        return labels[1 - labels.index(served.label)]

    async def differing(
        self, service: Service, call: Call, texts: Sequence[str], answers: Sequence[Answer]
    ) -> list[bool]:
        """Where the other adapter says something else; empty where it is not asked."""
        others = await self._others(service, call.caller, call.served, texts)
        return [] if others is None else [one.text != two.text for one, two in zip(answers, others, strict=True)]

    async def hear(self, service: Service, caller: Caller, person: str, served: Served, body: FeedbackBody) -> None:
        """Feedback that was kept. Only that on the answers of the arm which a caller is drawn for counts."""
        drawn = self.label(caller, self.canary.current_label)
        if self.other(served) is None or served.label != drawn:
            return
        others = await self._others(service, caller, served, [body.input])
        if others is None and served.task.labels:
            return
        by_candidate = served.label == self.canary.candidate_label
        said = vote(
            body.kind, by_candidate=by_candidate, share=self.canary.share, served=body.output,
            other=others[0].text if others else None, correction=body.correction,
        )  # fmt: skip
        changed = self.canary.hear(f"{caller.tenant}/{person}", said)
        async with self._writing:
            await asyncio.to_thread(self._keep, self.canary.to_dict(), changed)

    async def _others(
        self, service: Service, caller: Caller, served: Served, texts: Sequence[str]
    ) -> list[Answer] | None:
        label = self.other(served)
        if label is None or not served.task.labels:
            return None
        if service.tenants.adapter(caller.tenant, label) is None:
            return None
        call = service.call(caller, label, 0)
        try:
            return await call.task.answer(service, call, texts, 1)
        except ApiError:  # the queue is full: what was asked for is answered all the same
            return None

    def _keep(self, tree: dict[str, Any], changed: bool) -> None:
        try:
            write_canary(self.line, tree)
        except OSError as error:  # the feedback is kept; the next vote writes this one too
            log.error("the canary could not be written: %s", error.strerror)
        if not changed:
            return
        log.warning("the canary has ended: %s", self.canary.words())
        if self.canary.state == STOPPED:
            try:
                Line(self.line).roll_back(read_trust(self.home), self.canary.current)
            except LlmchainError as error:
                log.error("the line's pointer could not be moved back: %s", error.what)


def _unit(caller: Caller) -> str:
    """Whom an arm is drawn for: the token's own person, else the tenant."""
    return f"{caller.tenant}\n{caller.person}"
