"""Kits: made, made again, renewed, revoked, issued again."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from client.site import read_site
from llmchain_fl.config.read import read_config
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.certificates import hosts_of, read_certificate, read_signed
from llmchain_fl.onprem.keys import IDENTITY_KEY, make_keys, read_keys, read_request, write_request
from llmchain_fl.onprem.kit import read_coordinator_kit, read_site_kit
from llmchain_fl.onprem.provision import reissue, renew, revoke
from llmchain_fl.onprem.roster import read_roster

YEAR = timedelta(days=365)
PRIVATE = ("*.key", "server.crt", "ca.crt")


def contents(folder: Path, *patterns: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for pattern in patterns for path in sorted(folder.rglob(pattern))}


def test_every_folder_and_file_is_its_owners_alone_whatever_the_umask(lab: Any, umask: int) -> None:
    federation = lab.page()
    shutil.rmtree(lab.tree.root, ignore_errors=True)
    from llmchain_fl.onprem.provision import provision

    provision(federation, lab.tree.root, lab.app, [], lab.now)
    paths = [lab.tree.root, *lab.tree.root.rglob("*")]
    assert len(paths) > 40
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}


def test_a_site_file_is_filled_in_and_is_one_that_a_site_reads(lab: Any, small: object) -> None:
    lab.provision()
    site = read_site(lab.tree.site("north") / "site.toml")
    assert site.data.columns == {"text": "note", "label": "department", "person": "patient"}
    limits = site.limits
    assert (limits.epsilon, limits.delta, limits.units, limits.require_privacy) == (8.0, 1e-5, ["person"], True)
    model = Path(read_config(lab.tree.site("north") / "scenario.toml").model.path)
    assert limits.base_models == [base_digest(model)]
    assert (limits.max_steps, limits.max_rank, limits.max_tokens) == (2, 2, 12)
    roster = read_roster(lab.tree.roster)
    assert site.secure.peers == {name: roster.sites[name].identity for name in ("south", "west")}
    assert site.approved.bundles == [lab.bundle]
    text = (lab.tree.site("north") / "site.toml").read_text()
    assert "#   first                records/first.csv" in text
    assert all(f"#   {label}\n" in text for label in ("lost_card", "transfer", "rates"))


def test_a_kit_says_what_the_federation_is(lab: Any) -> None:
    lab.provision()
    kit, roster = read_site_kit(lab.tree.site("north")), read_roster(lab.tree.roster)
    assert (kit.name, kit.federation, kit.coordinator, kit.bundles) == ("north", "lab", "localhost:8000", [lab.bundle])
    assert (kit.node_key, kit.identity) == (roster.sites["north"].node_key, roster.sites["north"].identity)
    assert kit.stages == {"first": ["lost_card", "transfer"], "second": ["rates"]}
    own = read_coordinator_kit(lab.tree.coordinator)
    assert (own.listen, own.reach) == ("127.0.0.1:8000", "127.0.0.1:8000")
    flower = tomllib.loads((lab.tree.coordinator / "flower/config.toml").read_text())["superlink"]
    assert flower[flower["default"]]["root-certificates"] == str(lab.tree.coordinator / "ca.crt")
    server = read_certificate(lab.tree.coordinator / "server.crt")
    assert set(hosts_of(server)) == {"localhost", "127.0.0.1"}
    assert server.not_valid_after_utc == lab.now + YEAR


def test_made_again_no_key_and_no_certificate_changes(lab: Any) -> None:
    lab.provision()
    before = contents(lab.tree.root, *PRIVATE, "roster.json")
    lab.provision(lab.text.replace("epsilon = 8.0", "epsilon = 5.0"), now=lab.now + YEAR / 2)
    assert contents(lab.tree.root, *PRIVATE, "roster.json") == before
    assert read_site(lab.tree.site("west") / "site.toml").limits.epsilon == 5.0


def test_a_new_name_of_the_coordinator_gives_it_a_new_certificate_and_nothing_else(lab: Any) -> None:
    lab.provision()
    before = contents(lab.tree.root, "*.key", "ca.crt")
    lab.provision(lab.text.replace("[data]", 'also = ["fl.example.org"]\n[data]'))
    assert "fl.example.org" in hosts_of(read_certificate(lab.tree.coordinator / "server.crt"))
    changed = {path.name for path, data in contents(lab.tree.root, "*.key", "ca.crt").items() if before[path] != data}
    assert changed == {"server.key"}


def test_a_site_that_joins_gets_a_kit_and_every_other_lists_it(lab: Any) -> None:
    lab.provision()
    before = contents(lab.tree.root, "*.key")
    told = lab.provision(lab.text + "[sites.east]\n")
    assert told.written == ["north", "south", "west", "east"]
    assert before.items() <= contents(lab.tree.root, "*.key").items()
    assert all("east" in read_site(lab.tree.site(name) / "site.toml").secure.peers for name in ("north", "south"))
    assert lab.page(lab.text + "[sites.east]\n").config.sites.count == 4


def test_keys_that_a_crash_left_without_a_line_are_entered_as_they_are(lab: Any) -> None:
    lab.tree.root.mkdir()
    public = make_keys(lab.tree.site("north"), "north")
    assert lab.provision().roster.sites["north"].node_key == public.node_key


def test_an_authority_whose_certificate_a_crash_has_lost_keeps_its_key(lab: Any) -> None:
    lab.provision()
    key = (lab.tree.authority / "ca.key").read_bytes()
    (lab.tree.authority / "ca.crt").unlink()
    lab.provision()
    assert (lab.tree.authority / "ca.key").read_bytes() == key
    read_signed(lab.tree.authority / "ca.key", lab.tree.authority / "ca.crt")


def test_a_site_that_is_no_longer_on_the_page_is_told_and_stays(lab: Any) -> None:
    lab.provision()
    told = lab.provision(lab.text.replace("[sites.west]\n", ""))
    assert told.notes == ["west is no longer on the page: llmchain-fl provision revoke west ends it"]
    assert "west" in read_roster(lab.tree.roster).sites


def test_with_requests_no_private_key_of_a_site_is_ever_here(lab: Any, tmp_path: Path) -> None:
    told = lab.provision(lab.requested)
    assert told.written == []
    assert sum("has sent no request yet" in note for note in told.notes) == 3
    public = make_keys(tmp_path / "at the site", "north")
    request = read_request(write_request(tmp_path / "at the site", "north"))
    told = lab.provision(lab.requested, [request])
    assert told.written == ["north"]
    assert read_roster(lab.tree.roster).sites["north"].origin == "requested"
    assert {path.name for path in contents(lab.tree.root, "*.key")} == {"ca.key", "server.key"}
    assert read_site_kit(lab.tree.site("north")).identity == public.identity


def test_a_kit_that_is_unpacked_over_the_keys_of_the_request_leaves_them(lab: Any, tmp_path: Path) -> None:
    home = tmp_path / "home" / "north"
    public = make_keys(home, "north")
    lab.provision(lab.requested, [read_request(write_request(home, "north"))])
    shutil.copytree(lab.tree.site("north"), home, dirs_exist_ok=True)
    assert read_keys(home, "north") == public
    assert read_site(home / "site.toml").identity_file == home / IDENTITY_KEY


def test_a_request_of_a_stranger_is_refused_with_the_nearest_name(lab: Any, tmp_path: Path) -> None:
    make_keys(tmp_path, "nroth")
    with pytest.raises(ConfigError, match="nroth, who is not on the page; did you mean north"):
        lab.provision(lab.requested, [read_request(write_request(tmp_path, "nroth"))])
    assert not lab.tree.root.exists()


def test_a_second_request_with_other_keys_takes_no_sites_place(lab: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_keys(tmp_path / name, "north")
    first, second = (read_request(write_request(tmp_path / name, "north")) for name in ("a", "b"))
    lab.provision(lab.requested, [first])
    with pytest.raises(ConfigError, match="other keys on the roster"):
        lab.provision(lab.requested, [second])
    assert read_roster(lab.tree.roster).sites["north"].node_key == first.node_key


def test_renewal_changes_the_servers_certificate_and_no_other_file(lab: Any) -> None:
    lab.provision()
    before = {path: path.read_bytes() for path in lab.tree.root.rglob("*") if path.is_file()}
    written = renew(lab.tree.root, lab.now + YEAR, 100, authority=False)
    after = {path: path.read_bytes() for path in lab.tree.root.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before[path]} == set(written)
    assert {path.name for path in written} == {"server.key", "server.crt"}
    server = read_signed(lab.tree.coordinator / "server.key", lab.tree.coordinator / "server.crt").certificate
    assert server.not_valid_after_utc == lab.now + YEAR + timedelta(days=100)
    assert set(hosts_of(server)) == {"localhost", "127.0.0.1"}


def test_the_authority_is_renewed_with_its_key_and_handed_to_every_kit(lab: Any) -> None:
    lab.provision()
    keys = contents(lab.tree.root / "sites", "*.key") | contents(lab.tree.authority, "*.key")
    late = lab.now + 10 * YEAR - timedelta(days=100)
    with pytest.raises(ConfigError, match="renew the authority first"):
        renew(lab.tree.root, late, 365, authority=False)
    renew(lab.tree.root, late, 365, authority=True)
    assert contents(lab.tree.root / "sites", "*.key") | contents(lab.tree.authority, "*.key") == keys
    assert len(set(contents(lab.tree.root, "ca.crt").values())) == 1
    assert read_certificate(lab.tree.site("west") / "ca.crt").not_valid_after_utc > late + 9 * YEAR


def test_a_revoked_site_is_off_the_roster_and_its_kit_is_set_aside(lab: Any) -> None:
    lab.provision()
    keys = read_keys(lab.tree.site("north"), "north")
    place = revoke(lab.tree.root, "north", lab.now)
    assert place == lab.tree.root / "revoked" / "north.2026-12-01"
    assert place is not None
    assert read_keys(place, "north") == keys
    roster = read_roster(lab.tree.roster)
    assert (list(roster.sites), [past.node_key for past in roster.revoked]) == (["south", "west"], [keys.node_key])


def test_a_revoked_site_comes_back_by_reissue_alone_with_new_keys_and_the_others_keep_theirs(lab: Any) -> None:
    lab.provision()
    old = read_keys(lab.tree.site("north"), "north")
    others = contents(lab.tree.site("south"), "*.key")
    revoke(lab.tree.root, "north", lab.now)
    told = lab.provision()
    assert told.written == ["south", "west"]
    assert told.notes == ["north is revoked: llmchain-fl provision reissue north gives it new keys"]
    assert set(read_site(lab.tree.site("south") / "site.toml").secure.peers) == {"west"}
    reissue(lab.page(), lab.tree.root, lab.app, "north", None, lab.now)
    new = read_keys(lab.tree.site("north"), "north")
    assert not {new.node_key, new.identity} & {old.node_key, old.identity}
    assert read_site(lab.tree.site("south") / "site.toml").secure.peers["north"] == new.identity
    assert contents(lab.tree.site("south"), "*.key") == others


def test_reissue_revokes_what_is_there_and_two_on_one_day_are_two(lab: Any) -> None:
    lab.provision()
    for _ in range(2):
        reissue(lab.page(), lab.tree.root, lab.app, "west", None, lab.now)
    assert [past.name for past in read_roster(lab.tree.roster).revoked] == ["west", "west"]
    assert sorted(path.name for path in (lab.tree.root / "revoked").iterdir()) == [
        "west.2026-12-01",
        "west.2026-12-01.1",
    ]


def test_a_reissue_that_is_refused_revokes_nothing(lab: Any, tmp_path: Path) -> None:
    make_keys(tmp_path / "north", "north")
    request = read_request(write_request(tmp_path / "north", "north"))
    lab.provision(lab.requested, [request])
    before = lab.tree.roster.read_bytes()
    for name, sent, words in [
        ("north", request, "on the roster already"),
        ("south", request, "the request is of north"),
        ("north", None, "are made by the site"),
        ("nort", None, "did you mean north"),
    ]:
        with pytest.raises(ConfigError, match=words):
            reissue(lab.page(lab.requested), lab.tree.root, lab.app, name, sent, lab.now)
    assert lab.tree.roster.read_bytes() == before
    assert lab.tree.site("north").is_dir()


@pytest.mark.parametrize(
    "act", [lambda root, now: renew(root, now, 1, authority=False), lambda root, now: revoke(root, "a", now)]
)
def test_where_there_are_no_kits_nothing_can_be_renewed_or_revoked(act: Any, lab: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are no kits"):
        act(tmp_path, lab.now)


def test_another_federations_kits_are_left_alone(lab: Any) -> None:
    lab.provision()
    before = lab.tree.roster.read_bytes()
    with pytest.raises(ConfigError, match="holds the kits of the federation lab"):
        lab.provision(lab.text.replace('name = "lab"', 'name = "other"'))
    assert lab.tree.roster.read_bytes() == before


def test_a_page_that_leaves_open_whom_sites_trust_is_refused_where_noise_is_shared(lab: Any) -> None:
    shared = lab.text.replace("small.toml", "demo")
    with pytest.raises(ConfigError, match=r"counted_peers is missing for north, south, west"):
        lab.provision(shared)
    assert not lab.tree.root.exists()
    lab.provision(shared.replace("[limits]", "[secure]\ncounted_peers = 1\n[limits]"))
    secure = read_site(lab.tree.site("north") / "site.toml").secure
    assert (secure.only, secure.counted_peers, secure.min_peers) == (True, 1, 3)


def test_a_base_that_cannot_be_pinned_is_refused(lab: Any) -> None:
    text = lab.text.replace("[data]", "settings = ['model.path=\"org/model\"']\n[data]")
    with pytest.raises(ConfigError, match="sites cannot be told its digest"):
        lab.provision(text)


def test_a_wide_address_behind_loopback_is_told(lab: Any) -> None:
    told = lab.provision(lab.text.replace("localhost:8000", "fl.example.org:8000"))
    assert any("/v1/fleet/" in note for note in told.notes)
    assert not any("/v1/fleet/" in note for note in lab.provision().notes)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(lab: Any, tmp_path: Path) -> None:
    lab.provision()
    units = [str(path) for path in lab.tree.root.rglob("*.service")]
    assert len(units) == 4
    assert all("Environment=FLWR_HOME=" in Path(file).read_text() for file in units)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", *units],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Unknown" not in done.stderr


def test_the_readme_has_at_most_three_commands_for_a_site(lab: Any) -> None:
    lab.provision()
    text = (lab.tree.site("north") / "README.md").read_text()
    commands = [line.strip() for line in text.splitlines() if line.startswith("       llmchain-fl")]
    assert commands == ["llmchain-fl site check .", "llmchain-fl site up ."]
