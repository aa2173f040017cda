"""``/v1/feedback`` and ``/v1/consent``: what persons say of answers, and whether it may be trained on.

==================================================  ====================================================
case                                                result
==================================================  ====================================================
the receipt is not of this tenant's answer          404, as for an answer that there never was
the token is a person's own                         the person is this one; naming another is 403
the tenant speaks for its users                     the person is the one it names; none: 400
neither                                             403: feedback of nobody is taken from nobody
``choose`` or ``correct`` outside the label list    400
a correction that is no target of this task         400: no number, no list of labels
a person has left as many rows today as may be      429
other feedback on this answer is there              409
==================================================  ====================================================
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from llmchain_fl.core.data.lists import Listed
from llmchain_fl.core.data.turns import Turns
from llmchain_fl.core.privacy.units import same_person
from llmchain_fl.core.tasks.kind import task_kind
from llmchain_fl.feedback.edition import settle, withdraw
from llmchain_fl.feedback.record import CHOOSE, COLUMNS, CORRECT, Told, row_of
from llmchain_fl.feedback.store import TRAIN, Already, Full, Store
from llmchain_fl.serve import refusals
from llmchain_fl.serve.attend import caller_of
from llmchain_fl.serve.bodies import ConsentBody, FeedbackBody
from llmchain_fl.serve.metrics import Metrics
from llmchain_fl.serve.receipts import Receipts
from llmchain_fl.serve.served import Opened, Served
from llmchain_fl.serve.service import Service
from llmchain_fl.serve.settings import ServeSettings
from llmchain_fl.serve.tenants import Caller

FEEDBACK, CONSENT = "/v1/feedback", "/v1/consent"


@dataclass(frozen=True)
class Desk:
    """Where feedback is taken in."""

    store: Store
    receipts: Receipts
    labels: Mapping[str, frozenset[str]]
    per_day: int
    metrics: Metrics

    @staticmethod
    def open(settings: ServeSettings, opened: Sequence[Opened], metrics: Metrics) -> Desk:
        """Over the store of the serve file; what broke off before is made good.

        Raises:
            DataError: the store cannot be opened.
        """
        store = Store(Path(settings.feedback.store))
        settle(store)
        labels = {one.verified.label: frozenset(name for name, _ in one.task.labels) for one in opened}
        return Desk(store, Receipts(store.key), labels, settings.feedback.rows_per_day, metrics)

    def close(self) -> None:
        """End the store."""
        self.store.close()

    def take(self, caller: Caller, served: Served, body: FeedbackBody, now: float) -> str:
        """Keep it, or refuse it; whose it is, "" where the same was kept already.

        Raises:
            ApiError: see the table of this file.
        """
        given = as_asked(served, body.input)
        said = (caller.tenant, served.address, body.request_id, given, body.output)
        if not self.receipts.holds(body.receipt, said):
            raise refusals.ApiError(404, "there is no such answer for this token", "answer_not_found", "receipt")
        corrects = body.kind in (CORRECT, CHOOSE)
        if corrects != bool(body.correction):
            raise refusals.bad("correction", "with correct and choose, and with no other kind")
        labels = self.labels.get(served.label, frozenset())
        correction = as_target(served, given, body.correction, labels) if corrects else ""
        if body.kind == CHOOSE and not labels:
            raise refusals.bad("kind", "this model has no labels to choose from")
        person = person_of(caller, body.person)
        told = Told(caller.tenant, person, served.label, served.address, served.task.kind, body.request_id,
                    given, body.output, body.kind, correction, now)  # fmt: skip
        try:
            fresh = self.store.add(told, self.per_day)
        except Full:
            raise refusals.ApiError(
                429, "this person has left as much feedback as a day may have", "too_much"
            ) from None
        except Already:
            raise refusals.ApiError(409, "there is other feedback on this answer", "already_told") from None
        self.metrics.count("feedback_total", kind=body.kind)
        return person if fresh else ""

    def agree(self, caller: Caller, body: ConsentBody, now: float) -> int:
        """Consent given, or taken back; rows deleted.

        Raises:
            ApiError: a person that the caller cannot speak for.
        """
        person = person_of(caller, body.person)
        if body.given:
            self.store.agree(caller.tenant, person, body.scope, body.version, now)
            return 0
        if body.scope == TRAIN:
            return withdraw(self.store, caller.tenant, person, now)
        return self.store.withdraw(caller.tenant, person, body.scope, now)


def as_asked(served: Served, given: str) -> str:
    """An input as receipts have it: a conversation in one way of writing it; any other text is a turn of the user."""
    column = task_kind(served.task.kind).columns[0]
    if not isinstance(column, Turns):
        return given
    return column.text(given) or json.dumps([{"role": "user", "content": given}], ensure_ascii=False)


def as_target(served: Served, given: str, correction: str, labels: frozenset[str]) -> str:
    """A correction as a training record has it.

    Raises:
        ApiError: it is no target of this task.
    """
    kind = task_kind(served.task.kind)
    if kind.labelled and labels and correction not in labels:
        raise refusals.bad("correction", "is none of the labels")
    if served.task.kind not in COLUMNS:
        return correction
    column = kind.columns[-1]
    told = column.text(correction) if kind.names and isinstance(column, Listed) else correction
    fault = "a JSON list of labels" if told is None else kind.fault_of(row_of(served.task.kind, given, told), labels)
    if told is None or fault:
        raise refusals.bad("correction", fault)
    return told


def person_of(caller: Caller, named: str) -> str:
    """Whose feedback it is, as ``same_person`` spells it.

    Raises:
        ApiError: see the table of this file.
    """
    told, own = same_person(named), same_person(caller.person)
    if own:
        if told and told != own:
            raise refusals.ApiError(403, "this token stands for another person", "not_entitled", "person")
        return own
    if not caller.speaks_for_persons:
        raise refusals.ApiError(403, "this token stands for no person", "not_entitled", "person")
    if not told or not told.isprintable():
        raise refusals.bad("person", "name the person, as in the training records")
    return told


def feedback_routes(service: Service, desk: Desk) -> APIRouter:
    """The routes over a desk."""
    router = APIRouter()

    @router.post(FEEDBACK, status_code=201)
    async def feedback(request: Request, body: FeedbackBody) -> dict[str, Any]:
        """What a person says of one answer."""
        caller = caller_of(request)
        service.check_texts([body.input, body.output, body.correction], "input")
        served = service.tenants.adapter(caller.tenant, body.model)
        if served is None or not body.model:
            raise refusals.no_such_model()
        person = await asyncio.to_thread(desk.take, caller, served, body, time.time())
        if service.arms is not None and person:
            await service.arms.hear(service, caller, person, served, body)
        return {"request_id": body.request_id, "kept": True}

    @router.post(CONSENT)
    async def consent(request: Request, body: ConsentBody) -> dict[str, Any]:
        """Agree to training or to the monitor, or take it back."""
        deleted = await asyncio.to_thread(desk.agree, caller_of(request), body, time.time())
        return {"scope": body.scope, "given": body.given, "deleted": deleted}

    return router
