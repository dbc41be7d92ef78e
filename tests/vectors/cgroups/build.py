"""Makes the vectors beside it: `python tests/vectors/cgroups/build.py`.

Each is a `/proc/<pid>/cgroup` as some runtime leaves it, or as an attacker would like it. The first word of its name is
what must become of it: `pod` (that pod and that container), `container` (that container, its pod left open), `outside`
(in no pod), `refused` (it contradicts itself).
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
POD = "2c48913c-b29f-11e7-9350-020968147796"
CONTAINER = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961"
OTHER_POD = "00000000-b29f-11e7-9350-020968147796"
OTHER = "b" * 64
NODE = "a" * 64
STATIC = "0123456789abcdef0123456789abcdef"
"""The uid of a pod from a file on the node: no dashes."""

_SLICE = f"kubepods-besteffort-pod{POD.replace('-', '_')}.slice"
_IN_SLICES = f"/kubepods.slice/kubepods-besteffort.slice/{_SLICE}"
_PLAIN = f"/kubepods/burstable/pod{POD}/{CONTAINER}"
_USER = "/user.slice/user-1000.slice/user@1000.service"

_FOUND = {
    "cgroupfs_burstable": f"11:memory:{_PLAIN}\n1:name=systemd:{_PLAIN}",
    "cgroupfs_guaranteed": f"0::/kubepods/pod{POD}/{CONTAINER}",
    "systemd_containerd": f"0::{_IN_SLICES}/cri-containerd-{CONTAINER}.scope",
    "systemd_docker": f"0::{_IN_SLICES}/docker-{CONTAINER}.scope",
    "systemd_crio": f"0::{_IN_SLICES}/crio-{CONTAINER}.scope",
    "systemd_crio_crun": f"0::{_IN_SLICES}/crio-{CONTAINER}.scope/container",
    "colons": f"0::/{_SLICE}:cri-containerd:{CONTAINER}",
    "colons_below_containerd": f"0::/system.slice/containerd.service/{_SLICE}:cri-containerd:{CONTAINER}",
    "kind_cgroupfs": (
        f"9:memory:/docker/{NODE}/kubepods/besteffort/pod{POD}/{CONTAINER}\n"
        f"0::/docker/{NODE}/system.slice/containerd.service"
    ),
    "kind_systemd": (
        f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD.replace('-', '_')}.slice"
        f"/cri-containerd-{CONTAINER}.scope"
    ),
    "namespace_other_pod": f"0::/../../pod{POD}/{CONTAINER}",
    "namespace_other_pod_systemd": (
        f"0::/../../kubelet-kubepods-burstable-pod{POD.replace('-', '_')}.slice/cri-containerd-{CONTAINER}.scope"
    ),
    "static": f"0::/kubepods/burstable/pod{STATIC}/{CONTAINER}",
    "one_hierarchy_left_at_the_root": f"8:pids:/\n4:memory:{_PLAIN}\n0::/",
    "monitor_of_the_same_container": f"4:memory:{_PLAIN}\n0::/system.slice/crio-conmon-{CONTAINER}.scope",
    "a_pod_within_is_its_own_affair": f"0::{_PLAIN}/kubepods/pod{OTHER_POD}/{OTHER}",
    "a_container_within_is_its_own_affair": f"0::{_PLAIN}/{OTHER}",
}
_LEFT_OPEN = {
    "namespace_same_pod": f"0::/../{CONTAINER}",
    "namespace_same_pod_crio": f"0::/../crio-{CONTAINER}.scope",
}
_OUTSIDE = {
    "own_namespace": "0::/",
    "service": "0::/system.slice/sshd.service",
    "plain_docker": f"0::/system.slice/docker-{CONTAINER}.scope",
    "monitor_alone": f"0::/system.slice/crio-conmon-{CONTAINER}.scope",
    "pod_without_container": f"0::/kubepods/burstable/pod{POD}",
    "made_by_a_user": f"0::{_USER}{_PLAIN}",
    "made_by_a_user_in_slices": f"0::{_USER}{_IN_SLICES}/cri-containerd-{CONTAINER}.scope",
    "made_by_a_user_seen_from_a_namespace": f"0::/../../..{_USER}/pod{POD}/{CONTAINER}",
    "made_by_a_service": f"0::/system.slice/web.service{_PLAIN}",
    "dots_within": f"0::/kubepods/../pod{POD}/{CONTAINER}",
    "removed": f"0::{_PLAIN} (deleted)",
    "another_line_end_in_a_name": f"0::{_USER}/x\x0b0::{_PLAIN}\x0c\r1:name=systemd:\u2028{_PLAIN}",
    "short_id": f"0::/kubepods/pod{POD}/{CONTAINER[:-1]}",
}
_REFUSED = {
    "two_pods": f"4:memory:{_PLAIN}\n0::/kubepods/pod{OTHER_POD}/{CONTAINER}",
    "two_containers": f"4:memory:{_PLAIN}\n0::/kubepods/burstable/pod{POD}/{OTHER}",
    "monitor_of_another_container": f"4:memory:{_PLAIN}\n0::/system.slice/crio-conmon-{OTHER}.scope",
    "no_line_of_the_kernel": "kubepods",
    "not_numbered": f"x::{_PLAIN}",
    "relative": "0::kubepods",
}
_VERDICTS = {"pod": _FOUND, "container": _LEFT_OPEN, "outside": _OUTSIDE, "refused": _REFUSED}


def build() -> dict[str, bytes]:
    """Every vector by its file name."""
    return {
        f"{verdict}_{name}.txt": f"{text}\n".encode()
        for verdict, vectors in _VERDICTS.items()
        for name, text in vectors.items()
    }


if __name__ == "__main__":
    for old in HERE.glob("*.txt"):
        old.unlink()
    for name, data in build().items():
        (HERE / name).write_bytes(data)
