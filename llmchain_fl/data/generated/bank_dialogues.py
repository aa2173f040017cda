"""Synthetic instruction pairs: a customer's message with an instruction, and the short answer of the bank's clerk.

Plainly synthetic, like ``bank_messages``, from which the customer's side is drawn: the templates of the messages in
split "test" are disjoint from those in "train". The clerk knows the same answers in both splits (2 or more to an
intent), so a model is asked to understand new wording, not to invent new policy. An answer that echoes an amount, a
shop, a name, a place or a date takes it from the prompt.
"""

from __future__ import annotations

import json
import random
import re

from llmchain_fl.data.generated.bank_messages import MOST_MESSAGES, Message, draw_messages
from llmchain_fl.data.generated.bank_templates import phrases

_SLOT = re.compile(r"\{(\w+)\}")
_ECHO = 0.75
CLERK = "You are a clerk of a bank. Answer in one or two sentences."


def bank_dialogues(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Prompts and answers for causal language models.

    Args:
        seed: any integer.
        size: number of rows, at least 1 (checked by ``generate``).
        split: "train" or "test"; the two never share a message template.

    Returns:
        ``size`` rows ``{"prompt", "answer", "stage", "label", "branch", "person"}`` in random order. A prompt is the
        instruction, the line "Customer: ..." and the line "Clerk:"; an answer has one or two sentences.
    """
    rng = random.Random(f"bank-dialogues/{seed}/{split}")
    instructions = phrases().instructions
    return [
        {
            "prompt": f"{rng.choice(instructions)}\nCustomer: {message.text}\nClerk:",
            "answer": _answer(rng, message),
            "stage": message.stage,
            "label": message.label,
            "branch": message.branch,
            "person": message.person,
        }
        for message in draw_messages(rng, f"d{seed}-{split}", size, split)
    ]


def bank_conversations(seed: int, size: int, split: str) -> list[dict[str, str]]:
    """Conversations for chat: all messages of one customer, each with the clerk's answer behind it.

    Args:
        seed: any integer.
        size: number of rows, at least 1 (checked by ``generate``).
        split: "train" or "test"; the two never share a message template.

    Returns:
        ``size`` rows ``{"messages", "stage", "label", "branch", "person"}``; ``messages`` is the JSON text of 3 to 9
        turns, the first of them the system's; stage and label are those of the customer's first message.
    """
    rng = random.Random(f"bank-conversations/{seed}/{split}")
    people: dict[str, list[Message]] = {}
    for message in draw_messages(rng, f"c{seed}-{split}", MOST_MESSAGES * size, split):
        people.setdefault(message.person, []).append(message)
    return [_conversation(rng, messages) for messages in list(people.values())[:size]]


def _conversation(rng: random.Random, messages: list[Message]) -> dict[str, str]:
    turns = [{"role": "system", "content": CLERK}]
    for message in messages:
        turns += [{"role": "user", "content": message.text}, {"role": "assistant", "content": _answer(rng, message)}]
    first = messages[0]
    facts = {"stage": first.stage, "label": first.label, "branch": first.branch, "person": first.person}
    return {"messages": json.dumps(turns, ensure_ascii=False), **facts}


def _answer(rng: random.Random, message: Message) -> str:
    """An answer whose slots all stand in the message; one that echoes is preferred where there is one."""
    plain, echoing = [], []
    for answer in phrases().answers[message.label]:
        needed = set(_SLOT.findall(answer))
        if not needed:
            plain.append(answer)
        elif needed <= message.slots.keys():
            echoing.append(answer)
    pool = echoing if echoing and rng.random() < _ECHO else plain
    return _SLOT.sub(lambda match: message.slots[match[1]], rng.choice(pool))
