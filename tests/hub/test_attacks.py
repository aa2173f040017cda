"""Whatever somebody does to a hub is refused by its word, and nothing is kept of it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.hub import HubError, layout, read_trust, verified
from llmchain_fl.hub.pull import Wanted, pull
from llmchain_fl.hub.recompute import recomputed
from llmchain_fl.hub.refused import __doc__ as WORDS
from llmchain_fl.hub.trust import trust_publisher


def _attacks() -> Any:
    spec = importlib.util.spec_from_file_location("attacks_on_hub", Path(__file__).with_name("attacks.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


A = _attacks()
BANK = Wanted("bank")


def fetch(published: Any, place: Path, now: datetime | None = None) -> Any:
    return pull(str(published.hub), BANK, place, published.home, now or datetime.now(UTC))


@pytest.fixture
def copy(published: Any, tmp_path: Path) -> Any:
    """A hub that was pulled from before, and may now be changed."""
    return published.copied(tmp_path)


def test_without_an_attack_both_versions_are_pulled(copy: Any, tmp_path: Path) -> None:
    assert fetch(copy, tmp_path / "got").manifest.version == 2
    first = pull(str(copy.hub), Wanted("bank", 1), tmp_path / "first", copy.home, datetime.now(UTC))
    assert (first.manifest.version, first.address) == (1, copy.addresses[0])
    assert verified(tmp_path / "got", read_trust(copy.home)).parent == first.address


@pytest.mark.parametrize("name", A.ATTACKS)
def test_every_attack_is_refused_and_leaves_nothing(copy: Any, tmp_path: Path, name: str) -> None:
    attack, words = A.ATTACKS[name]
    changed = A.Copy(copy.hub, copy.own, *copy.addresses, datetime.now(UTC))
    attack(changed)
    with pytest.raises(HubError) as refused:
        fetch(copy, tmp_path / "got", changed.now)
    assert refused.value.check in words.split(), refused.value
    assert not (tmp_path / "got").exists()
    assert not list(tmp_path.glob(".got*"))


def test_there_are_many_attacks_and_every_word_of_the_table_is_met() -> None:
    words = {word for _, words in A.ATTACKS.values() for word in words.split()}
    listed = {line.split()[0] for line in str(WORDS).splitlines() if line[:1].isalpha() and "  " in line} - {"word"}
    elsewhere = {"extra", "revoked", "lineage", "transport"}  # below, in test_transport.py and in the tests of promote
    assert words | elsewhere == listed
    assert len(A.ATTACKS) >= 60


def test_an_index_that_was_replaced_by_a_newer_one_is_refused_when_it_is_shown_again(copy: Any, tmp_path: Path) -> None:
    old = (copy.hub / "index.json").read_bytes()
    A.Copy(copy.hub, copy.own, *copy.addresses, datetime.now(UTC)).index(lambda body: None)
    fetch(copy, tmp_path / "newer")
    (copy.hub / "index.json").write_bytes(old)
    with pytest.raises(HubError, match=r"^replay:"):
        fetch(copy, tmp_path / "got")


@pytest.mark.parametrize("extra", ["notes.txt", "evidence/notes.txt", "adapter_model.bin", ".hidden"])
def test_a_file_beside_those_that_were_signed_is_refused_where_the_adapter_is_loaded(
    copy: Any, tmp_path: Path, extra: str
) -> None:
    fetch(copy, tmp_path / "got")
    (tmp_path / "got" / extra).write_bytes(A.PICKLE)
    with pytest.raises(HubError, match=r"^extra:"):
        verified(tmp_path / "got", read_trust(copy.home))


@pytest.mark.parametrize("extra", ["notes.txt", "evidence/notes.txt"])
def test_a_link_beside_them_is_refused_as_well(copy: Any, tmp_path: Path, extra: str) -> None:
    fetch(copy, tmp_path / "got")
    (tmp_path / "got" / extra).symlink_to("/etc/passwd")
    with pytest.raises(HubError, match=r"^link:"):
        verified(tmp_path / "got", read_trust(copy.home))


def test_what_is_taken_back_later_is_refused_where_it_lies_already(copy: Any, tmp_path: Path) -> None:
    fetch(copy, tmp_path / "got")
    changed = A.Copy(copy.hub, copy.own, *copy.addresses, datetime.now(UTC))
    changed.index(lambda body: body["revoked"].update({copy.addresses[1]: "labels were wrong"}))
    assert fetch(copy, tmp_path / "newest").manifest.version == 1, "what was taken back is not the newest any more"
    with pytest.raises(HubError, match=r"^revoked:"):
        pull(str(copy.hub), Wanted("bank", 2), tmp_path / "again", copy.home, datetime.now(UTC))
    with pytest.raises(HubError, match=r"^revoked: bank@2 was taken back: labels were wrong"):
        verified(tmp_path / "got", read_trust(copy.home))


def test_nothing_is_written_over_what_is_there(copy: Any, tmp_path: Path) -> None:
    (tmp_path / "got").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is there already"):
        fetch(copy, tmp_path / "got")


def test_a_lone_folder_as_the_hugging_face_hub_holds_it_is_a_source_and_its_other_files_stay(
    copy: Any, tmp_path: Path
) -> None:
    shutil.copytree(copy.folder(2), tmp_path / "repository")
    (tmp_path / "repository" / ".gitattributes").write_text("*.safetensors filter=lfs")
    got = pull(str(tmp_path / "repository"), Wanted(), tmp_path / "got", copy.home, datetime.now(UTC))
    assert got.label == "bank@2"
    assert not (tmp_path / "got" / ".gitattributes").exists()


def test_a_lone_folder_of_an_earlier_version_than_was_seen_is_refused(copy: Any, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"^replay:"):
        pull(str(copy.folder(1)), Wanted(), tmp_path / "got", copy.home, datetime.now(UTC))
    with pytest.raises(HubError, match=r"^missing:"):
        pull(str(copy.folder(2)), Wanted("loans"), tmp_path / "got", copy.home, datetime.now(UTC))


def test_no_path_of_this_machine_is_published(copy: Any, run: Any, small: Any) -> None:
    for file in layout.entries(copy.folder(2)):
        data = (copy.folder(2) / file).read_bytes()
        for path in (str(run.path), str(small.bert), "site-00", "/tmp"):
            assert path.encode() not in data, f"{file} holds {path}"


def test_whoever_names_a_publisher_gets_nothing_of_another_that_is_trusted_as_well(copy: Any, tmp_path: Path) -> None:
    trust_publisher(copy.home, "south", A.STRANGER.public)
    for place, asked in ((copy.hub, BANK), (copy.folder(2), Wanted())):
        with pytest.raises(HubError, match=r"^publisher: this is of north, not of south"):
            pull(str(place), asked, tmp_path / "got", copy.home, datetime.now(UTC), "south")
    assert pull(str(copy.hub), BANK, tmp_path / "got", copy.home, datetime.now(UTC), "north").publisher == "north"


def test_a_page_of_another_version_of_this_project_may_differ_but_hold_no_html(copy: Any, tmp_path: Path) -> None:
    changed = A.Copy(copy.hub, copy.own, *copy.addresses, datetime.now(UTC))
    for number, (text, holds) in enumerate([(b"# other words", None), (b"a <img src=x>", False)]):
        changed.write(layout.README, text)
        changed.change(layout.CARD, made_by="llmchain-fl 9.9")
        changed.thief(lambda told: told | {"made_by": "llmchain-fl 9.9"})
        place = tmp_path / str(number)
        shutil.copytree(changed.folder, place)
        found = {check.name: check.holds for check in recomputed(verified(place, read_trust(copy.home)))}
        assert (found["page"], found["card"]) == (holds, True)
