"""A text in, another text out: summaries and translations, by a decoder or by an encoder-decoder.

A decoder is given a conversation of one turn each (``chat.py``): the instruction, a line break and the source; it
learns the reply. An encoder-decoder is given the instruction, a blank and the source, and learns the target behind its
own start token. Either way a row is source and target, one after the other, and its loss is the mean over the tokens
of the target with its end. Scores compare what is written greedily with the right text (``overlap.py``); a record's own
score lies in 0 .. 1, so a site may release their noised mean. BLEU is one number of many texts: no site releases it.

| case | result |
|---|---|
| source and target do not fit into a row | the target loses its end beyond half of it, then the source its end |
| a row that is shorter than the template alone | the template's beginning and the opening of the reply stay |
| a source without a token | the row has one padding token for it |
| a text that cannot be written | its score is NaN, in the mean 0 |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.causal_lm import CausalLM
from llmchain_fl.core.tasks.chat import ASSISTANT, USER, Chat
from llmchain_fl.core.tasks.overlap import bleu, bleu_counts, chrf, rouge_l
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.text import token_ids
from llmchain_fl.core.tasks.windows import rows_with


@dataclass(frozen=True)
class Rewriting:
    """What one kind of task reads and how it is scored.

    Attributes:
        source: the column that is read.
        target: the column that is written.
        usual: the instruction for a decoder where a run gives none.
        score: (written, right) -> 0 .. 1, one record's score.
    """

    source: str
    target: str
    usual: str
    score: Callable[[str, str], float]


SUMMARIES = Rewriting("document", "summary", "Summarise this text in one sentence.", rouge_l)
TRANSLATIONS = Rewriting("source", "target", "Translate this text.", chrf)


class PairExamples(Examples):
    """With what scores compare: the source and the right text of each record; what was written last, and by what."""

    sources: list[str]
    right: list[str]
    texts: tuple[Tensor, list[str | None]] | None = None


class ByDecoder(CausalLM):
    """With a causal language model: ``targets`` are the tokens before the reply."""

    def __init__(self, resident: Resident, spec: TaskSpec, kind: Rewriting) -> None:
        super().__init__(resident, spec.max_tokens)
        self._kind, self._instruction = kind, spec.instruction
        self._start(spec)

    def _start(self, spec: TaskSpec) -> None:
        """What reads a source."""
        base = self.resident.base
        self._instruction = self._instruction or self._kind.usual
        self._chat = Chat(base.tokenizer, spec.template == "plain", base.public_name)
        self._tail = self._behind()

    @property
    def most(self) -> int:
        """Tokens of a target."""
        return max(1, self._max_tokens // 2)

    def encode(self, rows: Sequence[Mapping[str, str]]) -> PairExamples:
        """Rows with the source (and the target) of the kind."""
        kind = self._kind
        read = [self._row(row[kind.source], row.get(kind.target, "")) for row in rows]
        ids = [np.concatenate([head, tail]) for head, tail, _ in read]
        made = rows_with(ids, [], np.ones(len(ids), dtype=np.int64), sum(cut for _, _, cut in read))
        found = PairExamples(made.ids, np.array([len(head) for head, _, _ in read], dtype=np.int64), cut=made.cut)
        found.sources = [row[kind.source] for row in rows]
        found.right = [row.get(kind.target, "") for row in rows]
        return found

    def _row(self, source: str, target: str) -> tuple[Numbers, Numbers, bool]:
        """(tokens before the target, tokens of the target, whether something was cut)."""
        turns = [{"role": USER, "content": self._asked(source)}, {"role": ASSISTANT, "content": target or " "}]
        ids, own, _ = self._chat.encoded(turns)
        told = np.flatnonzero(own)
        tail = ids[told[0] : told[-1] + 1] if len(told) else ids[-1:]
        head = ids[: told[0]] if len(told) else ids[:-1]
        room = self._max_tokens - min(len(tail), self.most)
        head, over = self._shortened(head, room)
        return head, tail[: self._max_tokens - len(head)], over or len(head) + len(tail) > self._max_tokens

    def _asked(self, source: str) -> str:
        return f"{self._instruction}\n{source}"

    def _behind(self) -> int:
        """Tokens of the template behind a source, at most."""
        one, other = (self._chat.opened([{"role": USER, "content": self._asked(text)}]) for text in ("a", "b"))
        same = next((k for k in range(1, min(len(one), len(other)) + 1) if one[-k] != other[-k]), len(one))
        return same - 1

    def _shortened(self, head: Numbers, room: int) -> tuple[Numbers, bool]:
        """The opening without the last tokens of the source that do not fit into ``room``."""
        if len(head) <= room:
            return head, False
        tail = head[len(head) - min(self._tail, room - 1) :]
        return np.concatenate([head[: room - len(tail)], tail]), True

    def opened(self, source: str) -> Numbers:
        """Token ids from which the target is written."""
        head = self._chat.opened([{"role": USER, "content": self._asked(source)}])
        return self._shortened(head, self._max_tokens - self.most)[0]

    def written(self, source: str) -> str:
        """The text that the model writes for a source, greedily."""
        return self.continued(self.opened(source), self.most, self._chat.stops)

    def _texts(self, examples: PairExamples) -> Iterator[tuple[str | None, str]]:
        """(written, right) of each record; None where it cannot be computed. Written once by the same plain adapter."""
        resident = self.resident
        plain = not any(resident.beside.state)
        if not (plain and examples.texts is not None and torch.equal(examples.texts[0], resident.theta)):
            examples.texts = resident.theta.clone(), [self._tried(source, examples) for source in examples.sources]
        return zip(examples.texts[1], examples.right, strict=True)

    def _tried(self, source: str, examples: PairExamples) -> str | None:
        """One record at a time: no neighbour has a part in what is written."""
        try:
            return self.written(source)
        except Exception:
            if examples.shape is None:
                raise
            return None

    def record_scores(self, examples: Examples, batch: int = 32) -> npt.NDArray[np.float64]:
        """ROUGE-L or chrF of each record, 0 .. 1."""
        assert isinstance(examples, PairExamples)
        pairs = self._texts(examples)
        return np.array([math.nan if text is None else self._kind.score(text, right) for text, right in pairs])

    def score(self, examples: Examples, batch: int = 32) -> dict[str, float]:
        """The mean of the records' scores, BLEU of all texts together, and the loss a token of the target."""
        assert isinstance(examples, PairExamples)
        pairs = [(text or "", right) for text, right in self._texts(examples)]
        told = {metric.name for metric in self.metrics}
        found = {self.metrics[0].name: sum(self._kind.score(*pair) for pair in pairs) / max(1, len(pairs))}
        if "bleu" in told:
            found["bleu"] = bleu(sum((bleu_counts(*pair) for pair in pairs), np.zeros(10)))
        return found | {"loss": super().score(examples, batch)["loss"]}

    def predict(self, texts: Sequence[str], top: int = 1) -> list[list[tuple[str, float]]]:
        """What is written for each text (one candidate, probability 1)."""
        return [[(self.written(text), 1.0)] for text in texts]


class ByEncoderDecoder(ByDecoder):
    """With an encoder-decoder: ``targets`` are the tokens that the encoder reads, the rest is what the decoder says."""

    def _start(self, spec: TaskSpec) -> None:
        config: Any = self.resident.base.module.config
        start = getattr(config, "decoder_start_token_id", None)  # T5: padding, BART: the end
        self._first = int(config.pad_token_id or 0) if start is None else int(start)

    def _asked(self, source: str) -> str:
        return f"{self._instruction} {source}" if self._instruction else source

    def _row(self, source: str, target: str) -> tuple[Numbers, Numbers, bool]:
        tokenizer, most = self.resident.base.tokenizer, self.most
        tail = np.asarray(tokenizer(text_target=target)["input_ids"], dtype=np.int64)
        if not len(tail) or (tokenizer.eos_token_id is not None and tail[-1] != tokenizer.eos_token_id):
            tail = np.append(tail, tokenizer.eos_token_id or 0)
        head = token_ids(tokenizer, [self._asked(source)], self._max_tokens + 1)[0]
        room = self._max_tokens - min(len(tail), most)
        cut = len(head) > room or len(head[:room]) + len(tail) > self._max_tokens
        head = token_ids(tokenizer, [self._asked(source)], room)[0]
        return head, tail[: self._max_tokens - len(head)], cut

    def opened(self, source: str) -> Numbers:
        """Token ids that the encoder reads."""
        return token_ids(self.resident.base.tokenizer, [self._asked(source)], self._max_tokens - self.most)[0]

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, T, V] of the decoder; both halves of a row are padded as the row is."""
        pad, device = self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device
        ids, mask = examples.batch(index, pad, torch.device("cpu"))
        length, told = mask.sum(dim=1), torch.from_numpy(examples.targets[list(index)])
        read = torch.where((told > 0) & (told < length), told, (length // 2).clamp_min(1))[:, None]
        place = torch.arange(ids.shape[1])[None, :]
        source, seen = torch.where(place < read, ids, pad), (place < read).long()
        behind = (place + read).clamp_max(ids.shape[1] - 1)
        weight = (place + read < length[:, None]).long()
        target = torch.where(weight == 1, ids.gather(1, behind), pad)
        said = torch.cat([torch.full_like(target[:, :1], self._first), target[:, :-1]], dim=1)
        if examples.shape is None:  # by themselves neither half is as long as the row
            widest, longest = int(read.max()), max(1, int(weight.sum(dim=1).max()))
            source, seen = source[:, :widest], seen[:, :widest]
            said, target, weight = said[:, :longest], target[:, :longest], weight[:, :longest]
        source, seen, said, target, weight = (part.to(device) for part in (source, seen, said, target, weight))
        output = self.resident.forward(source, seen, examples.frozen_outputs, index, said=said)
        return Output(output.logits.float(), target, weight.float())

    def written(self, source: str) -> str:
        """The text that the decoder writes for a source, greedily."""
        return self.continued(self.opened(source), self.most)


def summaries(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``, by what its base is."""
    return (ByEncoderDecoder if resident.base.two_stacks else ByDecoder)(resident, spec, SUMMARIES)


def translations(spec: TaskSpec, resident: Resident) -> Task:
    """The same for translations."""
    return (ByEncoderDecoder if resident.base.two_stacks else ByDecoder)(resident, spec, TRANSLATIONS)
