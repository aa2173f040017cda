"""The files of a kit that people and supervisors read: README, systemd unit, container file, environment."""

from __future__ import annotations

from llmchain_fl import __version__

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Nothing is reported, nobody is called, nothing is installed while a run goes on."""

_UNIT = """\
# systemd, as a user without rights: cp THIS ~/.config/systemd/user/ && systemctl --user enable --now {unit}
# (loginctl enable-linger keeps it up after a logout). WorkingDirectory is where this kit lies.
[Unit]
Description=llmchain_fl {who} of the federation {federation}
StartLimitIntervalSec=0

[Service]
WorkingDirectory=%h/llmchain-fl/{folder}
EnvironmentFile=%h/llmchain-fl/{folder}/environment
Environment=FLWR_HOME=%h/llmchain-fl/{folder}/flower
ExecStart=/usr/bin/env llmchain-fl {command} up .
Restart=always
RestartSec=10
UMask=0077
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"""

_CONTAINER = """\
# podman build -t llmchain-fl-{folder} . && podman run --rm --read-only --tmpfs /tmp --cap-drop=all \\
#   --userns=keep-id -v .:/kit:rw {ports}llmchain-fl-{folder}
FROM python:3.12-slim
RUN pip install --no-cache-dir llmchain-fl=={version}
{env}
WORKDIR /kit
ENTRYPOINT ["llmchain-fl", "{command}", "up", "/kit"]
"""

_SITE = """\
# Kit of the site {name}, federation {federation}

Made {made} for llmchain-fl {version}. Coordinator: {address}. This site calls out to it and to nobody else; nothing
has to be opened towards this machine.

1. Keep the folder as it is (0700, keys 0600): `tar -xpf` does, a zip file does not. {keys}
2. Put the records where `site.toml` looks for them, or tell `site.toml` where they are.
3. In this folder, with `pip install llmchain-fl=={version}` done:

       llmchain-fl site check .
       llmchain-fl site up .

`site check` changes nothing, sends nothing and says for each line what to do. `systemd/` and `Containerfile` start the
same command under a supervisor.

**Compare one line by telephone** with the other sites, never through the coordinator: `{fingerprint}`
(`site check` prints it from the keys that are listed here). Whoever could put a key of its own between the sites would
read what the secure sum hides.

The authority in `ca.crt` ends {ends}. `site check` warns 30 days before. `site.toml` is yours, and nothing of
it is ever sent: when a newer kit comes, keep yours and take over what you agree with (`[secure.peers]`, `[approved]`).
"""
_MADE = "**Whoever sent this kit made these keys** and could stand in for this site: see `llmchain-fl site request`."
_REQUESTED = "The keys that this site made stand in `keys/` already; unpack this kit over them."

_COORDINATOR = """\
# Kit of the coordinator, federation {federation}

Made {made} for llmchain-fl {version}. Sites reach it as {address}.

       llmchain-fl coordinator up .
       llmchain-fl coordinator run .

`roster.json` is the truth about who may connect; every start registers all its keys again. `server.crt` ends {ends}:
`llmchain-fl provision renew` makes the next one, and no site has to do anything. `../authority/ca.key` is not needed
here: keep it off this machine.

Hand each site its folder of `../sites` ({handed}) by a way that you trust, for example as
`tar -C ../sites -czf NAME.tgz NAME`; then delete the keys in your copy.
Let nothing but the calls of a SuperNode through to the sites: docs/examples/nginx.conf.
"""


def switches() -> str:
    """The environment of every process of a kit, one a line."""
    return "".join(f"{name}={value}\n" for name, value in SWITCHES.items())


def unit(federation: str, name: str) -> tuple[str, str]:
    """(file name, text) of the systemd unit of a site, or of the coordinator (no name)."""
    file = f"llmchain-fl-{name or 'coordinator'}.service"
    who, command = (f"site {name}", "site") if name else ("coordinator", "coordinator")
    fields = {"unit": file, "who": who, "federation": federation, "command": command}
    return file, _UNIT.format(folder=name or "coordinator", **fields)


def container(name: str, port: int) -> str:
    """The container file of a site, or of the coordinator (no name), which listens on ``port``."""
    environment = {**SWITCHES, "FLWR_HOME": "/kit/flower"}
    env = "ENV " + " \\\n    ".join(f"{key}={value}" for key, value in environment.items())
    ports, command = ("", "site") if name else (f"-p {port}:{port} ", "coordinator")
    return _CONTAINER.format(folder=name or "coordinator", version=__version__, env=env, ports=ports, command=command)


def site_readme(
    *, federation: str, name: str, made: str, address: str, fingerprint: str, ends: str, requested: bool
) -> str:
    """For the site's engineer."""
    fields = {"federation": federation, "name": name, "made": made, "address": address, "ends": ends}
    keys = _REQUESTED if requested else _MADE
    return _SITE.format(version=__version__, fingerprint=fingerprint, keys=keys, **fields)


def coordinator_readme(*, federation: str, made: str, address: str, ends: str, names: list[str]) -> str:
    """For the coordinator."""
    fields = {"federation": federation, "made": made, "address": address, "ends": ends}
    return _COORDINATOR.format(version=__version__, handed=", ".join(names), **fields)
