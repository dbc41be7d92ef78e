"""A container as a runtime starts it: in the cgroup of its pod, in namespaces of its own, with nothing but its mounts.

Its root is an empty memory file system in which only programs are mounted, read-only; then come the volumes where the
pod says, the outer before the inner; then it becomes the user the pod names, without any capability. The network is the
machine's, and so are process numbers where the pod asks for that. What is not done here is seccomp.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.cgroups import cgroup, place_of
from journeys.processes import ROOT, Finished, Running, finished, started

PROGRAMS = sorted({"/usr", str(ROOT), sys.prefix, sys.base_prefix})
LINKS = [path for path in ("/bin", "/sbin", "/lib", "/lib64", "/lib32") if Path(path).is_symlink()]
SETTINGS = [
    path for path in ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache") if Path(path).exists()
]
OWN_CGROUPS = "/sys/fs/cgroup"
"""Where a runtime shows a container its own cgroup, unless a volume of the pod is mounted there."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """What is to run, and where."""

    folder: Path
    name: str
    pod: Mapping[str, Any]
    spec: Mapping[str, Any]
    volumes: Mapping[str, Path]
    hosts: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Its `/`, seen from outside."""
        return self.folder / f"{self.name}.root"

    @property
    def cgroup(self) -> str:
        """As containerd with cgroupfs names it, in version 2."""
        status = self.pod["status"]["containerStatuses"][0]
        container = status["containerID"].removeprefix("containerd://")
        return f"2:/kubepods/burstable/pod{self.pod['metadata']['uid']}/{container}"

    @property
    def _only(self) -> Mapping[str, Any]:
        (found,) = self.spec["containers"]
        return dict(found)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Running]:
        """While the block runs; afterwards nobody is left in the cgroup."""
        self.root.mkdir(exist_ok=True)
        with cgroup(self.cgroup) as place:
            spaces = "--mount --cgroup --propagation private"
            if not self.spec.get("hostPID"):
                spaces += " --pid --fork --kill-child"
            script = f"echo $$ > {place}/cgroup.procs; exec unshare {spaces} sh -ec {shlex.quote(self._inside())}"
            async with started(
                "sh", "-ec", script, folder=self.folder, name=self.name, environment=self._environment()
            ) as running:
                yield running

    async def execute(self, running: Running, *command: str) -> Finished:
        """What `kubectl exec` does."""
        numbers = "" if self.spec.get("hostPID") else f"--pid=/proc/{running.pid}/ns/pid_for_children "
        join = f"echo $$ > {place_of(self.cgroup)}/cgroup.procs"
        enter = f"{join}; exec nsenter --target {running.pid} --mount --cgroup {numbers}{self._become(command)}"
        return await finished("sh", "-ec", enter, folder=self.folder, environment=self._environment())

    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/usr/sbin:/bin", **self.environment}

    def _inside(self) -> str:
        root = shlex.quote(str(self.root))
        whole = bool(self.spec.get("hostPID"))
        mounts = sorted(self._only["volumeMounts"], key=lambda one: str(one["mountPath"]).count("/"))
        lines = [
            f"mount -t tmpfs -o mode=755 none {root}",
            f"cd {root}",
            "mkdir -p proc dev etc run var sys/fs/cgroup",
            "ln -s ../run var/run",
            *(f"ln -s {Path(path).readlink()} {path[1:]}" for path in LINKS),
            "mount --rbind /dev dev",
            "mount --rbind /proc proc" if whole else "mount -t proc proc proc",
            *(f"cp {path} etc" for path in SETTINGS),
            f"echo 127.0.0.1 localhost {' '.join(self.hosts)} > etc/hosts",
        ]
        if all(one["mountPath"] != OWN_CGROUPS for one in mounts):
            lines.append(f"mount -t cgroup2 -o ro none .{OWN_CGROUPS}")
        lines += [line for one in mounts for line in self._mounted(one)]
        for path in PROGRAMS:  # after the volumes: the tree may lie below /tmp, of which a pod has its own
            lines.append(f"mkdir -p .{path}; mount --rbind {path} .{path}; mount -o remount,bind,ro .{path}")
        return "\n".join(
            [*lines, f"mount -o remount,ro,mode=755 {root}", f"exec {self._become(self._only['command'])}"]
        )

    def _mounted(self, one: Mapping[str, Any]) -> list[str]:
        place, source = f".{one['mountPath']}", self.volumes[one["name"]]
        make = f"mkdir -p {place}" if source.is_dir() else f"mkdir -p $(dirname {place}); touch {place}"
        lines = [make, f"mount --rbind {shlex.quote(str(source))} {place}"]
        return [*lines, f"mount -o remount,bind,ro {place}"] if one.get("readOnly") else lines

    def _become(self, command: Sequence[str]) -> str:
        """The user of the pod, without capabilities."""
        said = self.spec.get("securityContext", {})
        user, group, more = said.get("runAsUser", 0), said.get("runAsGroup", 0), said.get("fsGroup")
        groups = "--clear-groups" if more is None else f"--groups {more}"
        nothing = "--no-new-privs --bounding-set=-all --inh-caps=-all"
        who = f"setpriv --reuid {user} --regid {group} {groups} {nothing}"
        return f"chroot {shlex.quote(str(self.root))} {who} {shlex.join(command)}"
