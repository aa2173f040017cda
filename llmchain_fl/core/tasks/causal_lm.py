"""Instruction tuning (``prompt`` + ``answer``) and plain text (``text``) with a causal language model.

One loss per record: the mean over *its own* answer tokens, in whatever rows they stand. An answer longer than a row
goes on in the next one, behind the last quarter of a row that came before it. The model's built-in loss averages over
the tokens of the batch, which would weight a record's gradient by the length of the others (see docs/pitfalls.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmchain_fl.core.adapter.resident import Resident
from llmchain_fl.core.tasks.base import Examples, Numbers, Output, Task
from llmchain_fl.core.tasks.by_token import TokenLosses, words_at
from llmchain_fl.core.tasks.metric import Metric
from llmchain_fl.core.tasks.passes import each_record
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.tasks.text import begun, token_ids
from llmchain_fl.core.tasks.windows import rows_with

PROMPT = "{prompt}"
CONTEXT = 4
"""A row that goes on with a text begins with so much of it again: a quarter of a row."""
LONGEST = 10**6
"""Tokens of a prompt before it is cut from its beginning (a tokenizer cuts the end)."""

LONGEST_ANSWER = 48
"""Tokens of an answer that ``predict`` writes."""
DECIDING = 16
"""Plain text has no prompt: so many of its first tokens say which slot answers."""


class CausalLM(TokenLosses):
    """Next-token prediction on the answer; scores are held-out loss (nats per answer token) and perplexity."""

    metrics: tuple[Metric, ...]
    counts: float = 0.0

    def __init__(self, resident: Resident, max_tokens: int, windows: int = 1) -> None:
        self.resident, self._max_tokens, self._windows = resident, max_tokens, windows

    def encode(self, rows: Sequence[Mapping[str, str]]) -> Examples:
        """Token ids of prompt + answer + end; target = number of prompt tokens (0 for plain ``text``).

        At least one answer token always survives the cut: a too long prompt loses its beginning. An answer that does
        not fit into a row goes on in further ones, up to ``windows``; the rest, and the end with it, is cut.
        """
        tokenizer = self.resident.base.tokenizer
        prompts = [PROMPT.format(prompt=row["prompt"]) if "prompt" in row else "" for row in rows]
        answers = [f" {row['answer']}" if "answer" in row else row["text"] for row in rows]
        heads = begun(tokenizer, prompts, LONGEST)
        tails = token_ids(tokenizer, answers, LONGEST, special=False)
        end = np.asarray([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [], dtype=np.int64)
        parts = [self._rows(head, tail, end) for head, tail in zip(heads, tails, strict=True)]
        counts = np.array([len(rows) for rows, _, _ in parts], dtype=np.int64)
        new = [np.array([len(row) - size for row, size in zip(rows, sizes, strict=True)]) for rows, sizes, _ in parts]
        weights = [float(count / one.sum()) for one in new for count in one]
        examples = rows_with([row for rows, _, _ in parts for row in rows], weights, counts, sum(p[2] for p in parts))
        examples.targets = np.array([size for _, sizes, _ in parts for size in sizes], dtype=np.int64)
        return examples

    def _rows(self, head: Numbers, tail: Numbers, end: Numbers) -> tuple[list[Numbers], list[int], bool]:
        """(rows of a record, how many tokens of each are no answer of its own, whether something was cut)."""
        longest, again = self._max_tokens, max(1, self._max_tokens // CONTEXT)
        answer = np.concatenate([tail[: longest - 2], end])[: longest - 1]
        prompt = head[-max(1, longest - len(answer)) :]
        cut = len(head) > len(prompt)
        if len(tail) <= longest - 2 or self._windows == 1:
            return [np.concatenate([prompt, answer])], [len(prompt)], cut or len(tail) > longest - 2
        prompt = head[-max(1, longest // 2) :]
        whole, done = np.concatenate([prompt, tail, end]), min(longest, len(prompt) + len(tail) + len(end))
        rows, sizes = [whole[:done]], [len(prompt)]
        while done < len(whole) and len(rows) < self._windows:
            first, last = done - again, min(len(whole), done - again + longest)
            rows.append(whole[first:last])
            sizes.append(again)
            done = last
        return rows, sizes, done < len(whole) or len(head) > len(prompt)

    def forward(self, examples: Examples, index: Sequence[int]) -> Output:
        """Logits [n, T-1, V] of the next token; weight 1 where that token belongs to the answer.

        By length, so many of a row's tokens as the longest answer has, its answer's first: the others' logits, most of
        the work of a small base, are not computed. In fixed shapes all, for neighbours must not decide how many.
        """
        ids, mask = examples.batch(index, self.resident.base.tokenizer.pad_token_id or 0, self.resident.base.device)
        answer = mask * self.answers(examples, index, ids.shape[1]).to(ids.device)
        prompt = torch.where(answer.any(dim=1), answer.argmax(dim=1), 0)
        deciding = torch.where(prompt > 0, prompt, DECIDING)[:, None]
        asked = mask * (torch.arange(ids.shape[1], device=ids.device)[None, :] < deciding)
        targets, weight, fixed = ids[:, 1:], answer[:, 1:], examples.shape is not None
        if fixed or not weight.any():
            output = self.resident.forward(ids, mask, examples.frozen_outputs, index, asked, fixed=fixed)
            return Output(output.logits[:, :-1].float(), targets, weight.float())
        most = int(weight.sum(dim=1).max())
        places = weight.argsort(dim=1, descending=True, stable=True)[:, :most]
        with words_at(self.resident, places):
            output = self.resident.forward(ids, mask, examples.frozen_outputs, index, asked)
        return Output(output.logits.float(), targets.gather(1, places), weight.gather(1, places).float())

    def answers(self, examples: Examples, index: Sequence[int], width: int) -> Tensor:
        """int64 [n, width], 1 from a row's first token of an answer on."""
        prompt = torch.from_numpy(examples.targets[list(index)])
        return (torch.arange(width)[None, :] >= prompt[:, None]).long()

    def score(self, examples: Examples, batch: int = 32) -> dict[str, float]:
        """``loss`` and ``perplexity`` over all answer tokens of all records."""
        losses, tokens = each_record(examples, batch, lambda index: self._both(examples, index), 2)
        loss = float((losses * tokens).sum() / max(tokens.sum(), 1.0))
        return {"loss": loss, "perplexity": float(np.exp(min(loss, 50.0)))}

    def record_scores(self, examples: Examples, batch: int = 32) -> npt.NDArray[np.float64]:
        """Mean loss of each record's answer tokens, [records]."""
        losses: npt.NDArray[np.float64] = each_record(examples, batch, lambda index: self._both(examples, index)[:1])[0]
        return examples.by_record(losses)

    def _both(self, examples: Examples, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mean loss and number of answer tokens of each row."""
        output = self.forward(examples, index)
        count = output.weight.sum(dim=1) if output.weight is not None else torch.ones(len(index))
        return self.losses(output), count

    def predict(self, texts: Sequence[str], top: int = 1) -> list[list[tuple[str, float]]]:
        """Greedy answer to each prompt (one candidate, probability 1); a too long prompt loses its beginning."""
        prompts = begun(self.resident.base.tokenizer, [PROMPT.format(prompt=text) for text in texts], LONGEST)
        return [[(self.continued(prompt[-self._max_tokens :], LONGEST_ANSWER), 1.0)] for prompt in prompts]

    def continued(self, prompt: Numbers, most: int, stops: Sequence[int] | None = None) -> str:
        """What the model says behind ``prompt``, greedily, in at most ``most`` tokens.

        Args:
            prompt: token ids.
            most: new tokens.
            stops: ids that end it; None: those of the base.
        """
        tokenizer, ids = self.resident.base.tokenizer, torch.from_numpy(prompt)[None].to(self.resident.base.device)
        ends = {} if stops is None else {"eos_token_id": list(stops) or None}
        self.resident.module.eval()
        try:
            with self.resident.router.choosing(torch.ones_like(ids)):
                made = self.resident.base.module.generate(  # type: ignore[operator]
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=most,
                    do_sample=False,
                    use_cache=not self.resident.base.two_stacks,  # T5 with the deeper decoder has too short a cache
                    pad_token_id=tokenizer.pad_token_id,
                    **ends,
                )
        finally:
            self.resident.module.train()
        new = made[0, 0 if self.resident.base.two_stacks else ids.shape[1] :]
        return str(tokenizer.decode(new, skip_special_tokens=True)).strip()

    def sampled(self, count: int, nucleus: float) -> list[str]:
        """``count`` texts drawn from the start token on, at temperature 1 from the ``nucleus`` of each distribution.

        Draws from torch's own generator. A text may be empty.
        """
        tokenizer, base = self.resident.base.tokenizer, self.resident.base
        start = torch.from_numpy(begun(tokenizer, [""], LONGEST)[0]).to(base.device).repeat(count, 1)
        self.resident.module.eval()
        try:
            with self.resident.router.choosing(torch.ones_like(start)):
                made = base.module.generate(  # type: ignore[operator]
                    input_ids=start,
                    attention_mask=torch.ones_like(start),
                    max_new_tokens=self._max_tokens - 1,
                    do_sample=True,
                    temperature=1.0,
                    top_p=nucleus,
                    top_k=0,
                    pad_token_id=tokenizer.pad_token_id,
                )
        finally:
            self.resident.module.train()
        return [tokenizer.decode(row[start.shape[1] :], skip_special_tokens=True) for row in made]


def build(spec: TaskSpec, resident: Resident) -> Task:
    """The working task for ``spec``."""
    return CausalLM(resident, spec.max_tokens, spec.windows)
