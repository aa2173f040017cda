"""The one page: every fault at once, each with the nearest key."""

from __future__ import annotations

from typing import Any

import pytest

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.onprem.federation import split


def faults(lab: Any, text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        lab.page(text)
    assert "nothing was written" in error.value.remedy
    return error.value.faults


def test_a_page_names_the_sites_and_the_scenario_has_as_many(lab: Any) -> None:
    page = lab.page()
    assert list(page.page.sites) == ["north", "south", "west"]
    assert page.config.sites.count == 3
    assert set(page.hosts) == {"localhost", "127.0.0.1"}


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("epsilon", "epsilom", "limits.epsilom is no key; did you mean limits.epsilon?"),
        ("bundles", "bundels", "bundels is no key; did you mean bundles?"),
        ("[sites.north]", "[sites.north.dat]", "sites.north.dat is no key; did you mean data?"),
        ("[sites.south]", "[sites.south.data]\nencodin='x'", "sites.south.data.encodin is no key; did you mean data."),
        ("[sites.south]", "[sites.south.limits]\nepsilon=-1.0", "south.limits.epsilon: Input should be greater than 0"),
        ("[sites.south]", '[sites."a b"]', "sites.a b: String should match pattern"),
        ("localhost:8000", "localhost", 'address = "localhost": write HOST:PORT, a port from 1 to 65535'),
        ("localhost:8000", "localhost:0", 'address = "localhost:0": write HOST:PORT, a port from 1 to 65535'),
        ("localhost:8000", "a b:8000", 'address: "a b" is no name of a machine and no IP address'),
        ("localhost:8000", "300.1.1.1:80", 'address: "300.1.1.1" is no name of a machine and no IP address'),
        ("[data]", 'also = ["-x"]\n[data]', 'also: "-x" is no name of a machine and no IP address'),
        ("[data]", "days = 0\n[data]", "days: Input should be greater than or equal to 1"),
        ("[data]", 'listen = "no host"\n[data]', 'listen: "no host" is no name of a machine and no IP address'),
        ("small.toml", "smal", "scenario smal: there is no scenario 'smal'"),
        ("small.toml", "gone.toml", "there is no scenario"),
        ("[data]", 'settings = ["train.lrr=1"]\n[data]', "train.lrr is not a setting; did you mean train.lr?"),
        (f'{"["}sites.north]\n[sites.south]\n[sites.west]', "", "sites: Field required"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line(lab: Any, before: str, after: str, fault: str) -> None:
    assert before in lab.text
    (line,) = faults(lab, lab.text.replace(before, after))
    assert fault in line


def test_faults_of_page_site_and_scenario_come_together(lab: Any) -> None:
    text = lab.text.replace(":8000", "").replace("epsilon", "epsilom").replace("small.toml", "gone.toml")
    found = faults(lab, text.replace("[sites.west]", "[sites.west]\ncompute = { thread = 2 }"))
    assert len(found) == 4
    assert any("sites.west.compute.thread is no key; did you mean compute.threads?" in line for line in found)


def test_a_sites_own_tables_go_over_those_of_all(lab: Any) -> None:
    page = lab.page(lab.text.replace("[sites.south]", "[sites.south]\nlimits = { epsilon = 3.0 }"))
    told: dict[str, Any] = page.page.sites["south"].over({"limits": {"epsilon": 8.0, "delta": 1e-6}})
    assert told["limits"] == {"epsilon": 3.0, "delta": 1e-6}


@pytest.mark.parametrize(
    ("listen", "reach", "hosts"),
    [
        ("0.0.0.0", "127.0.0.1:8000", ["fl.example.org", "127.0.0.1", "localhost"]),
        ("10.0.0.5", "10.0.0.5:8000", ["fl.example.org", "10.0.0.5", "localhost", "127.0.0.1"]),
        ("::1", "[::1]:8000", ["fl.example.org", "::1", "localhost", "127.0.0.1"]),
    ],
)
def test_its_certificate_is_for_the_address_by_which_its_own_machine_reaches_it(
    lab: Any, listen: str, reach: str, hosts: list[str]
) -> None:
    page = lab.page(lab.text.replace("localhost", "fl.example.org").replace("[data]", f'listen = "{listen}"\n[data]'))
    assert (page.reach, page.hosts) == (reach, hosts)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("a:1", ("a", 1)), ("[::1]:80", ("::1", 80)), ("a", ("", 0)), ("a:x", ("a", 0)), ("a:123456", ("a", 0))],
)
def test_an_address_is_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split(address) == parts
