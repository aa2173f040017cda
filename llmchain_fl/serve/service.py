"""Between the protocols and the model's thread: who asks, what answers, and the wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from llmchain_fl.serve import refusals
from llmchain_fl.serve.call import Call
from llmchain_fl.serve.canary import Arms
from llmchain_fl.serve.decoder import FAILED, GONE, LATE, Decoder, Piece, Prompt
from llmchain_fl.serve.encoder import Encoder, Row
from llmchain_fl.serve.engine import Engine
from llmchain_fl.serve.metrics import Metrics
from llmchain_fl.serve.passages import Passages
from llmchain_fl.serve.prompts import Writing, prompt_row
from llmchain_fl.serve.settings import ServeSettings
from llmchain_fl.serve.tasks import SERVED
from llmchain_fl.serve.tenants import Caller, Tenants
from llmchain_fl.serve.tickets import Failed, Gone, Late, Refused, Result, Ticket
from llmchain_fl.serve.worker import Worker

BROKEN: Mapping[str, type[Refused]] = {LATE: Late, GONE: Gone, FAILED: Failed}


class Service:
    """A running server without its protocols.

    Args:
        settings: the serve file.
        worker: owns the model.
        revoked: whether an address has been taken back by now.
        thresholds: label -> probability below which an answer abstains.
        passages: public ones, shown where an answer abstains or is taken from them.
        arms: of a canary.
    """

    def __init__(
        self,
        settings: ServeSettings,
        worker: Worker,
        revoked: Callable[[str], bool],
        thresholds: Mapping[str, float],
        metrics: Metrics | None = None,
        passages: Passages | None = None,
        arms: Arms | None = None,
    ) -> None:
        self.settings, self.worker, self.metrics = settings, worker, metrics or Metrics()
        self.passages = passages
        self._revoked, self._thresholds = revoked, thresholds
        self._tenants: Tenants | None = None
        self.arms = arms
        self.metrics.gauge("waiting_rows", lambda: float(worker.waiting))
        self.metrics.gauge("ready", lambda: float(self.ready))

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.worker.ready.is_set() and self.worker.takes

    @property
    def engine(self) -> Engine:
        """The model.

        Raises:
            ApiError: it is not loaded yet.
        """
        if self.worker.engine is None:
            raise refusals.not_ready()
        return self.worker.engine

    @property
    def tenants(self) -> Tenants:
        """Who may ask.

        Raises:
            ApiError: the model is not loaded yet.
        """
        if self._tenants is None:
            beside = (self.arms.canary.current_label, self.arms.canary.candidate_label) if self.arms else ("", "")
            self._tenants = Tenants(self.settings.tenant, self.engine.served, self._revoked, beside)
        return self._tenants

    def caller(self, authorization: str) -> Caller:
        """Who sends this header.

        Raises:
            ApiError: 401, 503.
        """
        scheme, _, token = authorization.partition(" ")
        found = self.tenants.caller(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise refusals.unauthenticated()
        return found

    def call(self, caller: Caller, model: str, rows: int) -> Call:
        """Let a request in.

        Args:
            model: what it names; "" for the tenant's default.
            rows: texts in it.

        Raises:
            ApiError: 404 no such model; 429 too many rows a minute.
        """
        served = self.tenants.adapter(caller.tenant, model)
        if served is None:
            raise refusals.no_such_model()
        if self.arms is not None and model != served.label:
            served = self.tenants.adapter(caller.tenant, self.arms.label(caller, served.label)) or served
        if not self.tenants.take(caller.tenant, rows):
            raise refusals.too_fast()
        until = time.monotonic() + self.settings.queue.deadline_s
        return Call(caller, served, SERVED[served.task.kind], self._thresholds.get(served.label, 0.0), until)

    def check_texts(self, texts: Sequence[str], param: str) -> None:
        """Refuse too many texts, or too long ones.

        Raises:
            ApiError: 400.
        """
        bounds = self.settings.bounds
        if not 1 <= len(texts) <= bounds.inputs:
            raise refusals.bad(param, f"1 to {bounds.inputs} texts")
        if any(len(text) > bounds.text_chars for text in texts):
            raise refusals.bad(param, f"a text is longer than {bounds.text_chars} characters")

    async def vectors(self, call: Call, texts: Sequence[str]) -> list[Tensor]:
        """The vector of each text by the call's adapter.

        Raises:
            ApiError: 429, 499, 500, 503, 504.
        """
        task = call.served.task

        def row(text: str) -> Row:
            return self.encoder.encode(text, call.served.number, task.pooling, task.max_tokens)

        return await self.computed(call, [partial(row, text) for text in texts])

    async def computed(self, call: Call, makes: Sequence[Callable[[], Row]]) -> list[Tensor]:
        """What the encoder gives for each row. ``makes``: each makes a row, on the model's thread.

        Raises:
            ApiError: 429, 499, 500, 503, 504.
        """
        loop, found = asyncio.get_running_loop(), dict[int, Tensor]()
        done: asyncio.Future[None] = loop.create_future()

        def take(place: int, result: Result) -> None:
            if done.done():
                return
            if isinstance(result, Tensor):
                found[place] = result
                if len(found) == len(makes):
                    done.set_result(None)
            else:
                done.set_exception(refusals.refusal(result if isinstance(result, Refused) else Failed()))

        def row(make: Callable[[], Row]) -> Row:
            made = make()
            call.tokens.append(len(made.ids))
            return made

        self._submit(call, [(partial(row, make), take) for make in makes])
        try:
            async with asyncio.timeout(max(0.0, call.until - time.monotonic())):
                await done
        except TimeoutError:
            raise refusals.refusal(Late()) from None
        finally:
            call.gone.set()
        self.metrics.count("rows_total", len(makes))
        return [found[place] for place in range(len(makes))]

    async def pieces(self, call: Call, writing: Writing) -> AsyncIterator[Piece]:
        """A text as it is written; the last piece has the reason ``stop`` or ``length``.

        Raises:
            ApiError: 429, 499, 500, 503, 504.
        """
        queue: asyncio.Queue[Result] = asyncio.Queue()

        def take(_place: int, result: Result) -> None:
            queue.put_nowait(result)

        def row() -> Prompt:
            assert self.engine.decoder is not None
            return prompt_row(self.engine.decoder, call.served.number, writing)

        self._submit(call, [(row, take)])
        try:
            while True:
                async with asyncio.timeout(max(0.0, call.until - time.monotonic())):
                    result = await queue.get()
                if not isinstance(result, Piece):
                    raise refusals.refusal(result if isinstance(result, Refused) else Failed())
                if result.reason in BROKEN:
                    raise refusals.refusal(BROKEN[result.reason]())
                yield result
                if result.reason:
                    self.metrics.count("rows_total")
                    self.metrics.count("tokens_total", result.tokens)
                    return
        except TimeoutError:
            raise refusals.refusal(Late()) from None
        finally:
            call.gone.set()

    @property
    def encoder(self) -> Encoder:
        """Of a base that reads.

        Raises:
            ApiError: it writes, or is not loaded yet.
        """
        if self.engine.encoder is None:
            raise refusals.not_for_this("with a vector")
        return self.engine.encoder

    @property
    def decoder(self) -> Decoder:
        """Of a base that writes.

        Raises:
            ApiError: it writes nothing, or is not loaded yet.
        """
        if self.engine.decoder is None:
            raise refusals.not_for_this("with a text")
        return self.engine.decoder

    def _submit(
        self, call: Call, rows: Sequence[tuple[Callable[[], Row | Prompt], Callable[[int, Result], None]]]
    ) -> None:
        loop = asyncio.get_running_loop()

        def give(place: int, take: Callable[[int, Result], None]) -> Callable[[Result], None]:
            return lambda result: _tell(loop, take, place, result)

        tickets = [
            Ticket(call.caller.tenant, make, give(place, take), call.until, call.gone)
            for place, (make, take) in enumerate(rows)
        ]
        try:
            self.worker.submit(tickets)
        except Refused as reason:
            raise refusals.refusal(reason) from None


def _tell(loop: asyncio.AbstractEventLoop, take: Callable[[int, Result], None], place: int, result: Result) -> None:
    """From the model's thread; a loop that has ended is told nothing."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(take, place, result)
