"""What the worker owns: the base, the bank, and by the base's kind what turns rows into vectors or texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llmchain_fl.core.base_model import Base, BaseSpec, load_base
from llmchain_fl.serve.asking import asking_of
from llmchain_fl.serve.bank import Bank
from llmchain_fl.serve.decoder import Decoder
from llmchain_fl.serve.encoder import Encoder
from llmchain_fl.serve.heads import head_of
from llmchain_fl.serve.pair_decoder import PairDecoder
from llmchain_fl.serve.reading import reading_of
from llmchain_fl.serve.served import Opened, Served, one_base
from llmchain_fl.serve.tasks import SERVED, check_kinds


@dataclass
class Engine:
    """One base with its adapters. One of ``encoder`` and ``decoder`` is there.

    Attributes:
        base: what was loaded.
        served: the adapters, by number from 1.
    """

    base: BaseSpec
    served: tuple[Served, ...]
    bank: Bank
    encoder: Encoder | None = None
    decoder: Decoder | None = None


def open_engine(opened: Sequence[Opened], rows: int, load: Callable[[BaseSpec], Base] = load_base) -> Engine:
    """Load the base, stack the adapters, try the passes.

    Args:
        opened: verified adapters of one base.
        rows: most rows of a pass.
        load: gives the base; nothing else may be attached to it.

    Raises:
        ModelError: more than one base, an adapter that cannot be served, a task that no row of ``SERVED`` answers.
    """
    check_kinds(opened)
    spec = one_base(opened)
    bank = Bank(load(spec), [one.factors() for one in opened])
    bank.base.module.eval()
    told = [Served(k, one.verified.label, one.verified.address, one.verified.parent, one.task)
            for k, one in enumerate(opened, 1)]  # fmt: skip
    if SERVED[told[0].task.kind].writes:
        decoder = (PairDecoder if bank.base.two_stacks else Decoder)(bank, rows)
        decoder.check()
        return Engine(spec, tuple(_with_asking(one, bank.base) for one in told), bank, decoder=decoder)
    encoder = Encoder(bank, max(one.task.max_tokens for one in opened), rows)
    encoder.try_passes()
    return Engine(
        spec, tuple(_with_head(one, had, encoder) for one, had in zip(told, opened, strict=True)), bank, encoder
    )


def _with_asking(served: Served, base: Base) -> Served:
    return replace(served, asking=asking_of(served.task, base)) if SERVED[served.task.kind].asks else served


def _with_head(served: Served, opened: Opened, encoder: Encoder) -> Served:
    task, arrays = opened.task, opened.verified.to_load()
    if SERVED[task.kind].tokens:
        return replace(served, reading=reading_of(task, encoder.base, arrays))
    vectors = encoder.bare([text for _, text in task.labels], task.pooling, task.max_tokens)
    return replace(served, head=head_of(task, arrays, vectors))
