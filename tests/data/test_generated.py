from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from llmchain_fl.core.errors import DataError
from llmchain_fl.core.tasks.chat import fault
from llmchain_fl.data.generated import (
    GENERATORS,
    LABELS,
    SPLITS,
    STAGES,
    bank_conversations,
    bank_dialogues,
    bank_messages,
    generate,
)
from llmchain_fl.data.generated import label_texts as texts
from llmchain_fl.data.generated.bank_messages import draw_messages
from llmchain_fl.data.generated.bank_templates import phrases

both = pytest.mark.parametrize("name", ["bank-dialogues", "bank-messages"])
every = pytest.mark.parametrize("name", sorted(GENERATORS))
each_split = pytest.mark.parametrize("split", SPLITS)


@every
@each_split
def test_the_same_seed_gives_the_same_rows(name, split):
    assert generate(name, 3, 200, split) == generate(name, 3, 200, split)


@both
def test_another_process_with_another_hash_seed_gives_the_same_rows(name):
    code = f"from llmchain_fl.data.generated import generate; print(ascii(generate({name!r}, 5, 20, 'test')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ascii(generate(name, 5, 20, "test"))


@both
def test_other_seeds_and_splits_give_other_rows_and_other_persons(name):
    first, second, held_out = (
        generate(name, 1, 300, "train"),
        generate(name, 2, 300, "train"),
        generate(name, 1, 300, "test"),
    )
    assert first != second
    persons = [{row["person"] for row in rows} for rows in (first, second, held_out)]
    assert not persons[0] & persons[1]
    assert not persons[0] & persons[2]


@every
@pytest.mark.parametrize("size", [1, 2, 23, 24, 25, 500, 1001])
def test_sizes_are_exact(name, size):
    assert len(generate(name, 0, size, "train")) == size


def test_templates_of_train_and_test_are_disjoint_even_when_case_and_punctuation_are_ignored():
    def plain(split):
        known = phrases().templates[split]
        return [re.sub(r"[^\w{}|\[\]]+", " ", template).lower() for label in LABELS for template in known[label]]

    train, test = plain("train"), plain("test")
    assert not set(train) & set(test)
    assert len(set(train)) == len(train)
    assert len(set(test)) == len(test)


@each_split
@pytest.mark.parametrize("label", LABELS)
def test_every_intent_has_enough_templates(label, split):
    assert len(phrases().templates[split][label]) >= {"train": 14, "test": 6}[split]


def test_a_message_of_test_is_never_built_from_a_template_of_train():
    known = phrases().templates["train"]
    patterns = [re.compile(_as_pattern(template), re.IGNORECASE) for label in LABELS for template in known[label]]
    texts_of_test = {row["text"] for row in bank_messages(0, 600, "test")}
    assert not [text for text in texts_of_test if any(pattern.search(text) for pattern in patterns)]


def test_the_pattern_of_that_test_does_find_templates_in_train():
    known = phrases().templates["train"]
    patterns = {label: [re.compile(_as_pattern(t), re.IGNORECASE) for t in known[label]] for label in LABELS}
    rows = bank_messages(0, 600, "train")
    found = sum(any(p.search(row["text"]) for p in patterns[row["label"]]) for row in rows)
    assert found > 300  # the rest carries typing mistakes or lost its punctuation


def _as_pattern(template):
    out = re.escape(template.rstrip("?"))
    out = re.sub(r"\\\{\w+\\\}", ".+?", out)
    return re.sub(r"\\\[(.+?)\\\]", lambda m: "(?:" + m[1].replace(r"\|", "|") + ")", out)


def test_there_are_24_labels_in_3_stages_of_8_and_each_has_words_of_its_own():
    assert [len(labels) for labels in STAGES.values()] == [8, 8, 8]
    assert list(STAGES) == ["cards", "payments", "accounts"]
    assert [label for labels in STAGES.values() for label in labels] == LABELS
    assert len(set(LABELS)) == 24
    assert list(texts) == LABELS
    assert len(set(texts.values())) == 24
    assert not any("_" in words for words in texts.values())


@both
@pytest.mark.parametrize("size", [24, 100, 2000])
def test_labels_are_balanced_to_within_one_row(name, size):
    counts = Counter(row["label"] for row in generate(name, 0, size, "train"))
    assert set(counts) == set(LABELS)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_rows_left_over_do_not_always_go_to_the_same_label():
    assert len({bank_messages(seed, 1, "train")[0]["label"] for seed in range(60)}) > 12


@both
def test_a_row_names_the_stage_of_its_label(name):
    assert all(row["label"] in STAGES[row["stage"]] for row in generate(name, 0, 300, "test"))


@both
@each_split
def test_persons_write_one_to_four_messages_at_one_branch(name, split):
    rows = generate(name, 4, 1000, split)
    counts = Counter(row["person"] for row in rows)
    assert set(counts.values()) == {1, 2, 3, 4}
    branch_of = {row["person"]: row["branch"] for row in rows}
    assert all(branch_of[row["person"]] == row["branch"] for row in rows)


def test_six_branches_have_different_mixes_and_none_is_tiny():
    rows = bank_messages(0, 6000, "train")
    sizes = Counter(row["branch"] for row in rows)
    assert len(sizes) == 6
    assert min(sizes.values()) > 500
    shares = [
        [sum(r["branch"] == b and r["label"] == label for r in rows) / sizes[b] for label in LABELS] for b in sizes
    ]
    distances = [sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2 for p in shares for q in shares if p is not q]
    assert min(distances) > 0.15  # total variation; two even draws of this size stay below 0.08


@both
@each_split
def test_no_text_is_empty_and_no_slot_or_choice_is_left_open(name, split):
    for row in generate(name, 2, 3000, split):
        for column, cell in row.items():
            value = " ".join(map(str, json.loads(cell))) if column in ("candidates", "grades") else cell
            assert value.strip() == value != ""
            assert not set("{}[]|") & set(value)


def test_messages_vary_in_case_punctuation_and_typing():
    rows = bank_messages(0, 3000, "train")
    lowered = sum(row["text"] == row["text"].lower() for row in rows) / len(rows)
    ended = sum(row["text"][-1] in ".?!" for row in rows) / len(rows)
    assert 0.15 < lowered < 0.35
    assert 0.4 < ended < 0.8
    assert len({row["text"] for row in rows}) > 2700


def test_the_columns_are_the_ones_that_are_promised():
    assert list(bank_messages(0, 1, "train")[0]) == ["text", "label", "stage", "branch", "person"]
    assert list(bank_dialogues(0, 1, "train")[0]) == ["prompt", "answer", "stage", "label", "branch", "person"]


@pytest.mark.parametrize("label", LABELS)
def test_every_intent_has_two_answers_without_slots_and_one_that_echoes(label):
    answers = phrases().answers[label]
    assert sum("{" not in answer for answer in answers) >= 2
    assert any("{" in answer for answer in answers)
    assert len(set(answers)) == len(answers)


def test_every_echoing_answer_can_be_reached_by_some_template_of_train():
    for label, answers in phrases().answers.items():
        held = [set(re.findall(r"\{(\w+)\}", template)) for template in phrases().templates["train"][label]]
        for answer in answers:
            assert any(set(re.findall(r"\{(\w+)\}", answer)) <= slots for slots in held), answer


@each_split
def test_fillers_of_a_message_stand_in_its_text_undamaged(split):
    for message in draw_messages(random.Random(0), "x", 2000, split):
        assert all(filler.lower() in message.text.lower() for filler in message.slots.values())


@each_split
def test_what_an_answer_echoes_stands_in_its_prompt(split):
    echoed = 0
    fillers = [filler for slot in ("merchant", "city", "name") for filler in phrases().slots[slot]]
    for row in bank_dialogues(1, 2000, split):
        for filler in re.findall(r"\d+ euros|€\d+|\d+ EUR|\d+ pounds|£\d+", row["answer"]):
            assert filler.lower() in row["prompt"].lower()
            echoed += 1
        for filler in fillers:
            if re.search(rf"\b{filler}\b", row["answer"]):
                assert filler.lower() in row["prompt"].lower()
                echoed += 1
    assert echoed > 400


def test_a_prompt_holds_an_instruction_the_customer_and_the_turn_of_the_clerk():
    for row in bank_dialogues(0, 100, "train"):
        instruction, customer, clerk = row["prompt"].split("\n")
        assert instruction in phrases().instructions
        assert customer.startswith("Customer: ")
        assert clerk == "Clerk:"


@each_split
def test_a_conversation_is_of_one_customer_and_every_message_is_answered(split):
    rows = bank_conversations(0, 60, split)
    assert len({row["person"] for row in rows}) == len(rows) == 60
    for row in rows:
        assert fault(row, ()) == ""
        roles = [turn["role"] for turn in json.loads(row["messages"])]
        assert roles == ["system", *["user", "assistant"] * (len(roles) // 2)]
        assert 3 <= len(roles) <= 9


def test_an_unknown_name_is_refused_and_the_nearest_is_offered():
    with pytest.raises(DataError, match="did you mean 'bank-messages'"):
        generate("bank_mesages", 0, 10, "train")
    with pytest.raises(DataError, match="did you mean 'bank-dialogues'"):
        generate("dialogue", 0, 10, "train")
    with pytest.raises(DataError, match="known are: bank-choices, bank-conversations, bank-dialogues, bank-messages"):
        generate("", 0, 10, "train")


@both
@pytest.mark.parametrize("size", [0, -1])
def test_fewer_than_one_row_is_refused(name, size):
    with pytest.raises(DataError, match=f"asked for {size} rows; at least 1"):
        generate(name, 0, size, "train")


@both
@pytest.mark.parametrize("split", ["", "validation", "Train"])
def test_an_unknown_split_is_refused(name, split):
    with pytest.raises(DataError, match="choose one of: train, test"):
        generate(name, 0, 1, split)


@both
def test_five_thousand_rows_take_less_than_a_second_of_processor_time(name):
    generate(name, 0, 1, "train")
    start = time.process_time()
    generate(name, 0, 5000, "train")
    assert time.process_time() - start < 1.0


def test_importing_the_generators_loads_neither_torch_nor_numpy():
    code = "import sys, llmchain_fl.data.generated; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False)
    assert done.returncode == 0


def test_new_words_stand_for_whole_old_words_and_keep_a_capital():
    from llmchain_fl.data.generated.bank_renamed import renamed

    assert renamed("The ATM has eaten my Card, discard it.") == "The Moneybox has eaten my Kestrel, discard it."
    assert renamed("the hole in the wall at Marlow") == "the moneybox at Marlow"


def test_a_third_of_the_messages_or_more_has_a_new_word_and_pairs_are_half_and_half():
    from llmchain_fl.data.generated import bank_pairs, bank_passages
    from llmchain_fl.data.generated.bank_renamed import bank_renamed, renamed

    olds = ["card", "pin", "transfer", "sent", "loan", "refund", "machine", "account", "app", "till", "charge", "rate"]
    new = {renamed(old) for old in olds}
    for split in SPLITS:
        words = [set(re.findall("[a-z]+", row["text"].lower())) for row in bank_renamed(1, 500, split)]
        assert sum(bool(new & one) for one in words) > 500 / 3
        assert not any(one & {"card", "cards", "loan", "refund"} for one in words)
    pairs = bank_pairs(1, 600, "train")
    assert 240 < sum(row["label"] == "fits" for row in pairs) < 360
    assert {row["text2"] for row in pairs} == set(texts.values())
    passages = bank_passages()
    assert {row["label"] for row in passages} == set(LABELS)
    assert len({row["id"] for row in passages}) == len(passages)
    assert not any("{" in row["text"] for row in passages)
