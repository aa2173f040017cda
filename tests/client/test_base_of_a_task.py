"""Which base a task may make a site load: one on its own disk, by its content; never by a call to a hub."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.check import check_base
from client.site import Site, SiteData, SiteLimits
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.errors import ConfigError, ModelError


def site(**limits: Any) -> Site:
    return Site(name="north", data=SiteData(train="x.jsonl"), limits=SiteLimits(**limits))


def asking_for(small: Any, path: str) -> Any:
    work = small.work()
    return replace(work, base=replace(work.base, path=path))


@pytest.mark.parametrize("path", ["somebody/model", "bert-base-uncased", "x" * 300])
def test_a_name_that_is_on_no_disk_makes_a_site_call_nobody(
    small: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def call(*told: Any, **named: Any) -> None:
        raise AssertionError("the site opened a connection")

    monkeypatch.setattr(socket, "getaddrinfo", call)
    monkeypatch.setattr(socket.socket, "connect", call)
    with pytest.raises(ModelError, match="not on this site's disk"):
        check_base(site(), asking_for(small, path))
    check_base(site(hub=True), asking_for(small, path))


def test_a_folder_is_allowed_by_its_content_whatever_it_is_called(small: Any, tmp_path: Path) -> None:
    allowed = base_digest(Path(small.bert))
    check_base(site(base_models=[allowed]), asking_for(small, str(small.bert)))
    (tmp_path / "minilm").mkdir()
    (tmp_path / "minilm" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not allow"):
        check_base(site(base_models=[allowed]), asking_for(small, str(tmp_path / "minilm")))
    with pytest.raises(ModelError, match="does not allow"):
        check_base(site(base_models=["minilm"]), asking_for(small, str(small.bert)))


@pytest.mark.parametrize("name", ["other", "sha256:12", "/a/folder", "org/model"])
def test_a_site_file_that_allows_a_base_by_any_name_is_refused(name: str) -> None:
    with pytest.raises((ConfigError, ValueError), match="llmchain-fl digest"):
        SiteLimits(base_models=[name])
