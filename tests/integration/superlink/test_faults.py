"""Named faults on real processes: kits, TLS, registered keys, three sites. Each prints how long recovery took.

One lab for all of them, one run after the other; ``-s`` shows the table. The same faults in every phase of a round and
for every method, on a fake clock: ``tests/faults``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from client.site import read_site
from llmchain_fl.cli.apps import app_root
from llmchain_fl.core.messages import PROTOCOL

pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(1500)]
SITE, COORDINATOR = 90.0, 120.0
"""Seconds within which it goes on without a person, on a machine that is not busy."""
BUSY = float(os.environ.get("LLMCHAIN_FL_BUSY", "1"))
"""By which these are multiplied, where other work shares the machine."""
DAYS = timedelta(days=400)
BACK: list[tuple[str, float]] = []


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, fault_lab: Any, kits: Any, tiny: Any,
    only_the_bundle: Callable[[], dict[str, str]], free_port: Callable[[], int],
) -> Iterator[Any]:  # fmt: skip
    folder = tmp_path_factory.mktemp("faults")
    privacy = {"enabled": True, "noise_multiplier": 2.0, "delta": 1e-4}
    sites = {"count": 3, "held_out": 0.0, "minimum": 1, "wait_seconds": 20, "reply_seconds": 25 * BUSY}
    stage = [{"name": "only", "rounds": 2}]
    train = {"steps": 2, "sampling_rate": 0.2, "batch_size": 6}
    tiny.scenario(
        folder / "scenario.toml", sites=sites, privacy=privacy, stage=stage, train=train,
        continual={"guards": []}, data={"train": "at-the-sites"},
    )  # fmt: skip
    environment = only_the_bundle() | {"PYTHONPATH": str(app_root())}
    made = fault_lab.Lab(kits.Federation(folder, environment), kits, tiny,
                         (free_port(), free_port()), tiny.model)  # fmt: skip
    (folder / "run").symlink_to(folder)
    try:
        made.start()
        yield made
    finally:
        made.close()
        sys.stdout.write("\n" + "\n".join(f"{name:60} {seconds:6.1f} s" for name, seconds in BACK))


@pytest.fixture
def under_way(lab: Any) -> Iterator[Any]:
    """A run with a first round, stopped afterwards; the laws hold at its end."""
    process = lab.run(sites__wait_seconds=120)  # somebody may still be on the way back from the fault before
    yield lab
    with contextlib.suppress(AssertionError):
        lab.end(process)
    lab.until(lambda: process.poll() is not None)
    lab.check()


def note(what: str, seconds: float, limit: float | None = None) -> None:
    sys.stdout.write(f"\n{what}: {seconds:.1f} s\n")
    BACK.append((what, seconds))
    assert limit is None or seconds <= limit * BUSY, what


def site_is_back(lab: Any, name: str = "west") -> float:
    """Seconds until the site is in a round later than the present one."""
    now = lab.rounds() + 1
    return float(lab.until(lambda: lab.last(name) > now))


def coordinator_is_back(lab: Any) -> float:
    now = lab.rounds()
    return float(lab.until(lambda: lab.rounds() > now))


@pytest.mark.parametrize("module", ["run_site_executor", "flower-supernode"])
def test_a_process_of_a_site_that_is_killed_in_a_round_is_back_by_itself(under_way: Any, module: str) -> None:
    lab = under_way
    old = lab.process("west", module)
    old.send_signal(signal.SIGKILL)
    note(f"SIGKILL {module}", site_is_back(lab), SITE)
    assert lab.process("west", module).pid != old.pid


def test_a_sites_supervisor_that_is_killed_takes_its_processes_along_and_is_started_again(
    under_way: Any, fault_lab: Any
) -> None:
    lab = under_way
    before = [lab.process("west", module).pid for module in ("run_site_executor", "flower-supernode")]
    lab.down("west", signal.SIGKILL)
    lab.until(lambda: not any(map(fault_lab.alive, before)), 30 * BUSY)
    lab.site("west")  # as systemd does
    note("SIGKILL site up, started by the machine's supervisor", site_is_back(lab), SITE)


def test_the_coordinators_executor_may_be_killed_and_the_run_goes_on(under_way: Any) -> None:
    lab, before = under_way, under_way.said("run").count("gone on with")
    old = lab.process("coordinator", "run_server_executor")
    old.send_signal(signal.SIGKILL)
    note("SIGKILL run_server_executor", coordinator_is_back(lab), COORDINATOR)
    lab.until(lambda: lab.process("coordinator", "run_server_executor").pid != old.pid)
    assert lab.said("run").count("gone on with") == before


def test_a_run_whose_process_is_killed_goes_on_from_its_checkpoint(under_way: Any) -> None:
    lab = under_way
    (played,) = lab.process("coordinator", "run_server_executor").children()
    played.send_signal(signal.SIGKILL)
    note("SIGKILL of the run's process", coordinator_is_back(lab), COORDINATOR)
    assert "it is gone on with" in lab.said("run")


def test_a_superlink_with_a_database_may_be_killed_and_the_run_goes_on(under_way: Any) -> None:
    lab, before = under_way, under_way.said("run").count("gone on with")
    lab.process("coordinator", "flower-superlink").send_signal(signal.SIGKILL)
    note("SIGKILL SuperLink, --database", coordinator_is_back(lab), COORDINATOR)
    assert lab.said("run").count("gone on with") == before
    assert "database is locked" not in lab.said("coordinator")


def test_a_coordinators_supervisor_that_is_killed_is_started_again_and_the_run_goes_on(under_way: Any) -> None:
    lab = under_way
    lab.down("coordinator", signal.SIGKILL)
    time.sleep(2)
    lab.coordinator()
    note("SIGKILL coordinator up, started by the machine's supervisor", coordinator_is_back(lab), COORDINATOR)


def test_a_site_that_was_cut_off_is_back_after_the_wire_is_mended(under_way: Any) -> None:
    lab = under_way
    lab.wire.through = False
    now = lab.rounds()
    note("partition: the others go on", lab.until(lambda: lab.rounds() > now + 1))
    lab.wire.through = True
    note("partition healed", site_is_back(lab), SITE)


def test_a_slow_site_is_left_out_set_aside_and_back_when_it_is_quick_again(under_way: Any) -> None:
    lab = under_way
    executor = lab.process("west", "run_site_executor")
    executor.send_signal(signal.SIGSTOP)
    now = lab.rounds()
    note("slow site: a round without it", lab.until(lambda: lab.rounds() > now))
    lab.until(lambda: lab.last("west", "refused") > now)
    executor.send_signal(signal.SIGCONT)
    note("slow site awake", site_is_back(lab), SITE)


def test_a_site_whose_disk_is_full_says_no_and_is_back_when_there_is_room(under_way: Any) -> None:
    lab = under_way
    filler, now = lab.fill(lab.one.at("west") / "state"), lab.rounds()
    lab.until(lambda: lab.last("west", "refused") > now)
    filler.unlink()
    note("disk full at a site, freed", site_is_back(lab), SITE)


def test_a_coordinator_whose_disk_is_full_goes_on_when_there_is_room(under_way: Any) -> None:
    lab = under_way
    filler = lab.fill(lab.one.kit / "runs")
    lab.until(lambda: "the run died" in lab.said("run").rpartition("sites there")[2] or "No space" in lab.said("run"))
    filler.unlink()
    note("disk full at the coordinator, freed", coordinator_is_back(lab), COORDINATOR)


def test_wrong_expired_unregistered_and_plaintext_are_refused_in_words_and_disturb_nobody(
    under_way: Any, free_port: Callable[[], int]
) -> None:
    lab, one, now = under_way, under_way.one, under_way.rounds()
    guest, old, port = one.folder / "guest", free_port(), str(lab.port)
    shutil.copytree(one.at("north"), guest, ignore=shutil.ignore_patterns("state"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(guest / "other")], check=True)
    (guest / "wrong.crt").write_bytes(other_authority())
    ways = {
        "not signed by this CA": (port, "--root-certificates", "wrong.crt", "--key", "keys/node.key"),
        "certificate has expired": (str(old), "--root-certificates", "ca.crt", "--key", "keys/node.key"),
        "does not take this key now": (port, "--root-certificates", "ca.crt", "--key", "other"),
        "it speaks TLS and this site does not": (port, "--insecure"),
    }
    one.typed["guest"] = 0
    with expired(lab, old, guest):
        for words, (where, *options) in ways.items():
            process = one.up("guest", "site", "up", "site.toml", "--superlink", f"localhost:{where}", *options)
            note(f"refused: {words}", lab.until(lambda words=words: words in lab.said("guest")))
            process.terminate()
            process.wait(timeout=90)
    lab.until(lambda: lab.rounds() > now)


def other_authority() -> bytes:
    from llmchain_fl.onprem.certificates import make_authority, utc_now

    return make_authority("another", utc_now()).pem


@contextlib.contextmanager
def expired(lab: Any, port: int, folder: Path) -> Iterator[None]:
    """A server whose certificate is the authority's, and has ended."""
    from llmchain_fl.onprem.certificates import make_server, read_signed, utc_now

    authority = lab.one.folder / "kits" / "authority"
    made = make_server(read_signed(authority / "ca.key", authority / "ca.crt"), ["localhost"], utc_now() - DAYS, 365)
    (folder / "old.crt").write_bytes(made.pem)
    (folder / "old.key").write_bytes(made.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "old.crt", folder / "old.key")
    with socket.create_server(("127.0.0.1", port)) as listener:

        def accept() -> None:
            while True:
                try:
                    one, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), one, context.wrap_socket(one, server_side=True):
                    pass

        threading.Thread(target=accept, daemon=True).start()
        yield


def test_a_site_is_not_started_twice(under_way: Any) -> None:
    one = under_way.one
    said = one.type("west", "site", "up", code=2)
    assert "is up already" in said
    assert site_is_back(under_way) >= 0


@pytest.mark.parametrize(("ahead", "words"), [(60, "s fast"), (-400, "s slow")])
def test_a_clock_that_is_wrong_is_named_and_the_site_is_back_when_it_is_right(
    under_way: Any, tmp_path: Path, ahead: int, words: str
) -> None:
    lab = under_way
    lab.down("west")
    skew = f"import time\nreal = time.time\ntime.time = lambda: real() + {ahead}\n"
    (tmp_path / "sitecustomize.py").write_text(skew)
    lab.site("west", PYTHONPATH=f"{tmp_path}{os.pathsep}{app_root()}")
    lab.until(lambda: words in lab.said("west"))
    lab.down("west")
    lab.site("west")
    note(f"clock {ahead:+d} s, set right", site_is_back(lab), SITE)


def test_a_site_whose_budget_ends_says_no_and_is_back_when_it_is_raised(under_way: Any) -> None:
    lab = under_way
    spent = read_site(lab.one.at("west") / "site.toml").open_ledger("person").spent().epsilon
    lab.edit("west", "site.toml", r"epsilon = [\d.]+", f"epsilon = {spent * 1.01:.4f}")
    lab.until(lambda: lab.last("west", "refused") > lab.last("west"))
    now = lab.rounds()
    lab.until(lambda: lab.rounds() > now)
    lab.edit("west", "site.toml", r"epsilon = [\d.]+", "epsilon = 1000.0")
    note("budget gone, raised", site_is_back(lab), SITE)


def test_a_site_that_fails_for_ever_is_set_aside_and_the_run_completes(lab: Any) -> None:
    """At the start of a run it would be waited for (``sites.count``); so it begins to fail after a round."""
    page, rounds = lab.one.at("west") / "site.toml", 12
    honest = page.read_text()
    process = lab.run(rounds=rounds)
    lab.edit("west", "site.toml", r'bundles = \[\s*"sha256:\w+"', 'bundles = ["sha256:' + "0" * 64 + '"')
    try:
        lab.until(lambda: process.poll() is not None)
    finally:
        page.write_text(honest)
    assert process.returncode == 0, lab.said("run")
    assert 0 < lab.last("west") < lab.rounds() == rounds
    assert sum(row["metric"] == "refused" for row in lab.rows()) < rounds - lab.last("west")
    lab.check()


def test_with_fewer_than_the_minimum_the_run_waits_says_so_and_goes_on_later(lab: Any) -> None:
    process = lab.run(rounds=6, sites__minimum=2)
    for name in ("south", "west"):
        lab.down(name)
    lab.until(lambda: process.poll() is not None)
    assert process.returncode == 1
    assert "a round needs 2" in lab.said("run")
    for name in ("south", "west"):
        lab.site(name)
    note("fewer than the minimum, sites back", coordinator_is_back_by(lab))


def coordinator_is_back_by(lab: Any) -> float:
    process, begun = lab.resume(), time.monotonic()
    lab.until(lambda: process.poll() is not None)
    assert process.returncode == 0, lab.said("run")
    lab.check()
    return time.monotonic() - begun


def test_a_site_of_an_older_version_is_named_with_its_protocol_and_the_others_go_on(lab: Any, tmp_path: Path) -> None:
    for room in ("client", "llmchain_fl", "server"):
        shutil.copytree(app_root() / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "llmchain_fl" / "core" / "messages.py"
    file.write_text(file.read_text().replace(f"PROTOCOL = {PROTOCOL}", f"PROTOCOL = {PROTOCOL - 1}"))
    process = lab.run()
    lab.down("west")
    lab.site("west", PYTHONPATH=str(tmp_path))
    try:
        told = f"it speaks protocol {PROTOCOL - 1}, the server {PROTOCOL}"
        note("older version named", lab.until(lambda: told in lab.said("coordinator")))
        now = lab.rounds()
        lab.until(lambda: lab.rounds() > now + 1)
    finally:
        lab.down("west")
        lab.site("west")
    note("older version replaced", site_is_back(lab), SITE)
    lab.end(process)
    lab.check()


def test_a_superlink_without_a_database_may_be_killed_and_the_run_goes_on_from_its_checkpoint(lab: Any) -> None:
    lab.down("coordinator")
    lab.coordinator(database=False)
    process = lab.run()
    lab.process("coordinator", "flower-superlink").send_signal(signal.SIGKILL)
    note("SIGKILL SuperLink, state in memory", coordinator_is_back(lab), COORDINATOR)
    assert "it is gone on with" in lab.said("run")
    lab.end(process)
    lab.check()


def test_a_key_that_is_revoked_is_turned_away_and_the_others_go_on(lab: Any) -> None:
    """The last one: such a key never comes back."""
    process = lab.run()
    lab.one.type("coordinator", "provision", "revoke", "west", "kits")
    assert "west" in lab.one.type("coordinator", "coordinator", "register", "kits/coordinator")
    words = ("does not take this key now", "does not know this SuperNode any more")
    note("revoked", lab.until(lambda: any(one in lab.said("west").rpartition("[executor] ready")[2] for one in words)))
    now = lab.rounds()
    lab.until(lambda: lab.rounds() > now)
    lab.end(process)
    lab.check()
