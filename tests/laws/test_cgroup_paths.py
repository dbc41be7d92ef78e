"""Laws of cgroup paths: whoever may not make the cgroup of a pod or unit is in none, whatever it calls its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attestor.methods.workload.cgroup import Entry, parse
from attestor.methods.workload.container import locate
from attestor.methods.workload.protocol import CantSay
from attestor.methods.workload.systemd import unit_of
from ca.errors import Malformed

UID, CONTAINER = "2c48913c-b29f-11e7-9350-020968147796", "a" * 64
MEANT = [
    "kubepods",
    "kubepods.slice",
    "besteffort",
    f"pod{UID}",
    CONTAINER,
    f"kubepods-pod{UID.replace('-', '_')}.slice",
    f"cri-containerd-{CONTAINER}.scope",
    f"kubepods-pod{UID}.slice:cri-containerd:{CONTAINER}",
    "system.slice",
    "agent.service",
    "containerd.service",
    "user@0.service",
    "docker",
]
ANY_NAME = st.text(st.characters(exclude_characters="/\n\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
NAMES = st.lists(st.one_of(st.sampled_from(MEANT), ANY_NAME.filter(lambda name: name not in {".", ".."})), max_size=6)
OWN = st.sampled_from(
    [
        "/user.slice/user-1000.slice/user@1000.service",
        "/user.slice/user-1000.slice/session-3.scope",
        "/system.slice/web.service",
        "/init.scope",
        "/lxc/one",
    ]
)


def text(*paths: str) -> bytes:
    """As the kernel writes it."""
    return "".join(f"0::{path}\n" for path in paths).encode()


@given(own=OWN, below=NAMES)
def test_below_what_is_its_own_nobody_makes_a_pod(own: str, below: list[str]) -> None:
    """Whatever it calls its cgroups."""
    assert locate(parse(text("/".join([own, *below])))) is None


@given(below=NAMES)
def test_below_a_user_s_manager_nobody_makes_a_unit_of_the_machine(below: list[str]) -> None:
    """What is said is said in the user's name."""
    found = unit_of(parse(text("/".join(["/user.slice/user-1000.slice/user@1000.service", *below]))))
    assert found is not None
    assert found.slices == ("user.slice", "user-1000.slice")
    assert (found.name == "") == (found.user is None) or found.user == 1000


@given(below=NAMES)
def test_below_a_container_it_is_that_container(below: list[str]) -> None:
    """And its cgroup is the one its end is told by."""
    place = f"/kubepods/burstable/pod{UID}/{CONTAINER}"
    found = locate(parse(text("/".join([place, *below]))))
    assert found is not None
    assert (found.pod, found.container, found.container_cgroup.path) == (UID, CONTAINER, place)


@given(below=NAMES)
def test_below_a_unit_it_is_that_unit(below: list[str]) -> None:
    """A container's systemd, or a service that delegates to itself, changes nothing above."""
    found = unit_of(parse(text("/".join(["/system.slice/agent.service", *below]))))
    assert found is not None
    assert (found.name, found.user, found.cgroup.path) == ("agent.service", None, "/system.slice/agent.service")


@given(data=st.binary(max_size=300))
def test_garbage_is_refused_or_read_and_never_more(data: bytes) -> None:
    """No other failure, and nothing found twice."""
    try:
        entries = parse(data)
    except Malformed:
        return
    assert all(isinstance(entry, Entry) and entry.path.startswith("/") for entry in entries)
    for look in (locate, unit_of):
        try:
            look(entries)
        except CantSay:
            continue
