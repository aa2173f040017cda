"""``hub:org/name[:config]``: a data set of the Hugging Face hub, or of its local cache."""

from __future__ import annotations

from llmchain_fl.core.data.rows import Found
from llmchain_fl.core.errors import DataError
from llmchain_fl.core.foreign import attempt
from llmchain_fl.data.columnar import table_rows
from llmchain_fl.extras import need


def load(name: str, split: str, seed: int, size: int | None) -> Found:
    """``org/name[:config]`` from the hub or its local cache.

    Raises:
        ConfigError: ``datasets`` is not installed.
        DataError: offline, not found, no such config or split; with how to use a local copy instead.
    """
    need("hub", f"hub:{name}")
    import datasets

    repository, _, config = name.partition(":")
    where = f"hub:{name}"
    loaded = attempt(lambda: datasets.load_dataset(repository, config or None, split=split))
    table = None if loaded is None else attempt(lambda: (loaded.with_format("arrow")[:], loaded.features.to_dict()))
    if table is None:
        raise DataError(
            f"split '{split}' cannot be loaded",
            where=where,
            remedy="check name, config and split; without a network, save_to_disk it elsewhere and give that directory",
        )
    return table_rows(*table, f"{where}[{split}]")
