"""A site over a tiny random base that answers whatever it is sent, and says what became of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from flwr.app import RecordDict

from client.app import do_train
from client.dataset import Cache
from client.scores import do_score
from client.site import read_site
from llmchain_fl.core.adapter.value import AdapterSpec
from llmchain_fl.core.base_model import BaseSpec
from llmchain_fl.core.codec_spec import CodecSpec
from llmchain_fl.core.errors import LlmchainError
from llmchain_fl.core.guards.olora import OloraSite
from llmchain_fl.core.messages import TrainTask
from llmchain_fl.core.privacy.plan import PrivacyPlan
from llmchain_fl.core.score_task import ScoreTask
from llmchain_fl.core.tasks.spec import TaskSpec
from llmchain_fl.core.wire import read_train_task
from llmchain_fl.core.work import TrainSpec, WorkSpec, open_work
from llmchain_fl.requests import write_score_task, write_train_task
from simulations.guard_specs import spec_of

LABELS = (("a", "red"), ("b", "blue"))
WORDS = ("red", "blue", "one", "two", "three", "four")


def write_tiny_base(folder: Path) -> Path:
    """A random BERT of two layers with a tokenizer of a few words, as ``save_pretrained`` writes it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    words = {word: number for number, word in enumerate([*special.values(), *WORDS])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    )
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    torch.manual_seed(3)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=32, initializer_range=0.2, **shape)
    BertModel(config).save_pretrained(folder)
    return folder


class MutantSite:
    """``good``: messages that the site does, to make mutants of."""

    def __init__(self, folder: Path) -> None:
        base = folder.parent / "base"
        if not base.exists():
            write_tiny_base(base)
        folder.mkdir(parents=True)
        rows = [{"text": f"{WORDS[i % 6]} {WORDS[i % 5]}", "label": "ab"[i % 2], "person": f"p{i}"} for i in range(12)]
        for name in ("s1", "s1.held"):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "site.toml").write_text(
            'name = "north"\n[data]\ntrain = "{stage}.jsonl"\nheld_out = "{stage}.held.jsonl"\n'
            '[limits]\nepsilon = 1e9\nunits = ["person"]\nscores = "noised"\n'
            "max_steps = 3\nmax_rank = 8\nmax_message_mb = 1\n"
        )
        self._site = read_site(folder / "site.toml")
        self._cache: Cache = {}
        self._number = 0
        work = self._work(base)
        resident, _ = open_work(work.resident, work.task)
        resident.focus(work.adapter.trained)
        arrays = resident.fresh()
        guarded = replace(work, guards=(spec_of(OloraSite, form="l1", rows=8.0, strength=1.0),))
        packed = replace(work, codec=CodecSpec("int8", 16, 0.5, True))
        self.good = [
            write_train_task(TrainTask("run", 1, 0, "s1", 0.1, one.to_json(), arrays))
            for one in (work, guarded, packed)
        ]
        self.good.append(write_score_task(ScoreTask(1, ("s1",), work.to_json(), arrays, run="run")))

    @staticmethod
    def _work(base: Path) -> WorkSpec:
        plan = PrivacyPlan(0.5, 2.0, 1.0, 1, 4.0, 1e-5, records_per_unit=4, score_noise=2.0)
        return WorkSpec(
            BaseSpec(str(base), device="cpu"),
            AdapterSpec(2, 2.0, ("query",), 1),
            TaskSpec("classification", "label-text", LABELS, 10.0, "mean", 16),
            TrainSpec(1, 0.5, 4.0, 8, "adam", 0.5, 1),
            plan=plan,
            cache_mb=8,
            threads=1,
        )

    def answer(self, which: int, content: RecordDict) -> str:
        """``update``, the code of a refusal, or ``error: ...`` for an exception that is not of our own."""
        self._number += 1
        config = content.config_records.get("config")
        if config is not None and config.get("round") == 1:  # a round of its own, else it was sealed before
            config["round"] = self._number
        try:
            if which == len(self.good) - 1:
                reply = do_score(self._site, content, self._cache)
            else:
                reply = do_train(self._site, read_train_task(content), self._cache, None)
        except LlmchainError as error:
            return error.code
        except Exception as error:
            return f"error: {type(error).__name__}"
        refused = reply.config_records["config"].get("refused")
        return f"sealed refusal {refused!r}" if refused else "update"

    def unsealed(self) -> int:
        """Rounds that were paid for and gave nothing that could leave."""
        log = self._site.ledger_folder / "events.jsonl"
        text = log.read_text() if log.exists() else ""
        return text.count('"type":"reserve"') - text.count('"type":"seal"')
