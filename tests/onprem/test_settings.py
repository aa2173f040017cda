"""What ``site up`` and ``coordinator up`` refuse before anything is started, all faults at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llmchain_fl.cli.main import main
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem import CoordinatorSettings, SiteSettings, site_up, up
from llmchain_fl.onprem.words import meaning


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Each exists, for its owner alone."""
    made = {name: tmp_path / name for name in ("site.toml", "ca.crt", "server.crt", "server.key")}
    for path in made.values():
        path.touch(mode=0o600)
    return made


def test_what_can_be_started_is_not_refused(files: dict[str, Path]) -> None:
    SiteSettings(files["site.toml"], "lab.example:8000", files["ca.crt"], files["server.key"]).check()
    SiteSettings(files["site.toml"], "[::1]:8000", insecure=True).check()
    CoordinatorSettings(ca=files["ca.crt"], certificate=files["server.crt"], key=files["server.key"]).check()
    CoordinatorSettings(insecure=True).check()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"site": Path("none.toml")}, "SITE none.toml: there is no such file"),
        ({"root_certificates": Path("none.crt")}, "--root-certificates none.crt: there is no such file"),
        ({"superlink": "lab.example"}, "--superlink lab.example: give HOST:PORT"),
        ({"superlink": ":8000"}, "give HOST:PORT"),
        ({"superlink": "https://lab.example"}, "give HOST:PORT"),
        ({"insecure": True, "key": "server.key"}, "--insecure: without TLS"),
    ],
)
def test_each_fault_of_a_site_is_named(files: dict[str, Path], changes: dict[str, Any], fault: str) -> None:
    given = {"site": files["site.toml"], "superlink": "lab.example:8000", **changes}
    if isinstance(given.get("key"), str):
        given["key"] = files[given["key"]]
    with pytest.raises(ConfigError) as refused:
        SiteSettings(**given).check()
    assert fault in str(refused.value)


def test_all_faults_are_named_at_once(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="3 faults"):
        SiteSettings(Path("none"), "lab", Path("none")).check()


def test_a_private_key_that_others_may_read_is_refused(files: dict[str, Path]) -> None:
    files["server.key"].chmod(0o640)
    with pytest.raises(ConfigError, match="others may read it"):
        SiteSettings(files["site.toml"], "lab:8000", key=files["server.key"]).check()


def test_a_coordinator_has_tls_or_says_that_it_has_none(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="--certificate, --key: needed for TLS"):
        CoordinatorSettings(ca=files["ca.crt"]).check()
    with pytest.raises(ConfigError, match="leave out"):
        CoordinatorSettings(ca=files["ca.crt"], insecure=True).check()


@pytest.mark.parametrize(
    ("settings", "address"),
    [({}, "127.0.0.1"), ({"host": "0.0.0.0"}, "127.0.0.1"), ({"host": "0.0.0.0", "name": "lab"}, "lab")],
)
def test_the_coordinators_own_executor_reaches_it_by_a_name_of_its_certificate(
    settings: dict[str, str], address: str
) -> None:
    assert CoordinatorSettings(**settings).reached_at == address  # type: ignore[arg-type]


def test_a_site_that_is_up_is_not_started_a_second_time(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SiteSettings(files["site.toml"], "lab:8000", insecure=True)
    seen: list[str] = []

    def inside(parts: object) -> None:
        with pytest.raises(ConfigError, match="is up already"):
            site_up(settings)
        seen.append("inside")

    monkeypatch.setattr(up, "_keep_up", inside)
    site_up(settings)
    assert seen == ["inside"]
    assert (files["site.toml"].parent / "state").stat().st_mode & 0o077 == 0


def test_the_secret_between_the_processes_is_the_owners_and_gone_afterwards() -> None:
    with up._secret() as file:
        assert file.stat().st_mode & 0o077 == 0
        assert file.parent.stat().st_mode & 0o077 == 0
        assert len(file.read_bytes()) == 32
    assert not file.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[code: 2004] Failed to activate SuperNode.", "not registered"),
        ("Client error '401 Unauthorized' for url", "does not know this SuperNode any more"),
        ("ERROR: SSL/TLS handshake error detected.", "TLS"),
        ("[Errno 98] error while attempting to bind: address already in use", "--port"),
        ("all is well", ""),
    ],
)
def test_what_flowers_last_lines_mean_is_said_in_words(line: str, words: str) -> None:
    assert words in meaning(["Starting", line, "stopped"])
    assert bool(meaning([line])) == bool(words)


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["site", "up", "none.toml", "--superlink", "lab"], ["SITE none.toml", "give HOST:PORT"]),
        (["coordinator", "up"], ["--ca, --certificate, --key: needed for TLS"]),
    ],
)
def test_the_commands_say_all_that_is_wrong_and_start_nothing(
    words: list[str], faults: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["llmchain-fl", *words])
    monkeypatch.setattr(up, "_keep_up", lambda parts: pytest.fail("started"))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert all(fault in told for fault in faults)
