"""What ``site up`` and ``coordinator up`` are told; a kit fills the same two forms."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmchain_fl.core.errors import ConfigError


def _nothing() -> None:
    """Called when the SuperLink answers, where nobody has asked for more."""


@dataclass(frozen=True)
class SiteSettings:
    """One site.

    Attributes:
        site: its site file.
        superlink: ``HOST:PORT`` of the coordinator.
        root_certificates: the CA that signed the coordinator's certificate; None: those of this machine.
        key: the private key by which the coordinator knows this site.
        insecure: without TLS; on one machine only.
        port: on which SuperNode and executor of this site meet, on this machine; 0: any that is free.
        environment: more for the environment of both processes.
    """

    site: Path
    superlink: str
    root_certificates: Path | None = None
    key: Path | None = None
    insecure: bool = False
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Find every fault at once, before anything is started.

        Raises:
            ConfigError: missing files, a key that others may read, options that exclude each other.
        """
        faults = _missing({"SITE": self.site, "--root-certificates": self.root_certificates, "--key": self.key})
        faults += _open_key(self.key)
        if self.insecure and (self.root_certificates or self.key):
            faults.append("--insecure: without TLS there is no certificate to check, and a key would prove nothing")
        if not self.superlink.rpartition(":")[2].isdigit() or not self.superlink.rpartition(":")[0]:
            faults.append(f"--superlink {self.superlink}: give HOST:PORT (or a kit's folder in place of a site file)")
        if faults:
            raise ConfigError(faults)


@dataclass(frozen=True)
class CoordinatorSettings:
    """The coordinator.

    Attributes:
        host, port: on which address and port of this machine it listens.
        name: a name of this machine that stands in its certificate; empty: ``host``, or 127.0.0.1 for all addresses.
        ca, certificate, key: of TLS, all three or none.
        insecure: without TLS; on one machine only.
        known_sites: only SuperNodes whose key is registered may connect (needs TLS).
        database: file in which the SuperLink keeps its state; None: in memory, lost when it ends.
        on_answer: called each time the SuperLink answers after a start; may raise, and is then called again.
        environment: more for the environment of both processes.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str = ""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    known_sites: bool = True
    database: Path | None = None
    on_answer: Callable[[], None] = _nothing
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def reached_at(self) -> str:
        """Where this machine's own executor reaches it."""
        return self.name or ("127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host)

    def check(self) -> None:
        """Find every fault at once, before anything is started.

        Raises:
            ConfigError: missing files, a key that others may read, options that exclude each other.
        """
        given = {"--ca": self.ca, "--certificate": self.certificate, "--key": self.key}
        faults = _missing(given) + _open_key(self.key)
        if self.insecure and any(given.values()):
            faults.append("--insecure: leave out --ca, --certificate and --key, or --insecure")
        lacking = [name for name, path in given.items() if path is None]
        if not self.insecure and lacking:
            faults.append(f"{', '.join(lacking)}: needed for TLS (or --insecure, on one machine only)")
        if faults:
            raise ConfigError(faults)


def _missing(files: dict[str, Path | None]) -> list[str]:
    return [f"{name} {path}: there is no such file" for name, path in files.items() if path and not path.is_file()]


def _open_key(key: Path | None) -> list[str]:
    if key is None or not key.is_file() or not key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return []
    return [f"--key {key}: others may read it (chmod 600 {key}, and if they could, make a new one)"]
