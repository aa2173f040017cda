"""Two sites, records in memory, one adapter; what came of it as values. About ten seconds, no network.

python docs/examples/quick_start.py [RUN]
"""

from __future__ import annotations

import sys

import pandas

import llmchain_fl as lf

TEXTS = {
    "card lost": ["my card is gone", "I left my card on the train", "somebody took my bank card", "card stolen abroad"],
    "transfer": ["the money has not arrived", "send 40 euros to my sister", "wrong account number", "transfer is late"],
    "loan": ["what is the rate of a loan", "I want to repay my loan", "delay one instalment", "loan for a car"],
}
RECORDS = [{"text": text, "label": label} for label, texts in TEXTS.items() for text in texts]
PUBLIC = [
    {"text": "my card was stolen yesterday", "label": "card lost"},
    {"text": "my transfer did not arrive", "label": "transfer"},
    {"text": "how much is a loan", "label": "loan"},
]


def main(out: str | None = None) -> lf.Result:
    """Run it, and show what the result is."""
    result = lf.run(
        {
            "model": {"max_tokens": 16, "threads": 1},
            "adapter": {"rank": 4, "last_layers": 1},
            "train": {"steps": 4, "sampling_rate": 0.5, "batch_size": 4, "lr": 0.01},
            "stage": [{"name": "first", "rounds": 2}],
        },
        train={"north": RECORDS[::2], "south": pandas.DataFrame(RECORDS[1::2])},
        test=PUBLIC,
        callbacks=[lambda report, rows: print(f"round {report.round}: {report.scores}, {len(rows)} rows")],
        out=out,
    )
    print(result.metrics.query("metric == 'accuracy'")[["round", "task", "value"]])
    print(result.predict(["somebody stole my card"]))  # what the run serves
    print(lf.Classifier.from_folder(result.adapter)(["somebody stole my card"]))  # transformers and peft alone
    print(f"report: {result.report}\nadapter: {result.adapter} (see its README.md)")
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
