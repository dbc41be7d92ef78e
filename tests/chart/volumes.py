"""The volumes of a pod as a kubelet lays them out: whose they are, what their modes are, what is a link.

A folder of a ConfigMap, a Secret or a projection is 0777 and everything in it a link into a folder that is replaced as
a whole; an `emptyDir` is 0777; a path of the machine that had to be made is root's, 0755; a fresh volume of a claim is
root's with a `lost+found`. Then `fsGroup` gives all of it but the machine's own to a group (Kubernetes: pkg/volume,
volume_linux.go and util/atomic_writer.go).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOBODY_IN_PARTICULAR = -1


@dataclass(frozen=True, slots=True)
class File:
    """A file of a projection."""

    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a kubelet fetches for pods, and where it keeps their volumes; `root` stands for the machine's own."""

    root: Path
    kept: Path
    config_maps: dict[str, Mapping[str, bytes]]
    secrets: dict[str, Mapping[str, bytes]]
    token: Callable[[Mapping[str, Any], str | None], str]

    def volumes(self, pod: Mapping[str, Any], spec: Mapping[str, Any], claims: Mapping[str, Any]) -> dict[str, Path]:
        """The folder (or file) of each volume by name. `claims` are there again when the pod comes again."""
        group = spec.get("securityContext", {}).get("fsGroup")
        made: dict[str, Path] = {}
        for volume in spec["volumes"]:
            path = made[volume["name"]] = self._made(pod, spec, volume)
            if group is not None and "hostPath" not in volume:
                give(path, group, writable="emptyDir" in volume)
        for name in claims:
            path = made[name] = self._claimed(pod, name)
            if group is not None and path.stat().st_gid != group:  # fsGroupChangePolicy: OnRootMismatch
                give(path, group, writable=True)
        return made

    def _made(self, pod: Mapping[str, Any], spec: Mapping[str, Any], volume: Mapping[str, Any]) -> Path:
        if "hostPath" in volume:
            return self._of_the_machine(**volume["hostPath"])
        path = _folder(self.kept / pod["metadata"]["uid"] / volume["name"], 0o777)
        if "emptyDir" in volume:
            return path
        sources = volume.get("projected", {}).get("sources", [volume])
        mode = (volume.get("projected") or volume.get("secret") or volume["configMap"]).get("defaultMode", 0o644)
        files = {name: file for one in sources for name, file in self._files(pod, one, mode)}
        user = spec.get("securityContext", {}).get("runAsUser", 0)
        write(path, files, user if "projected" in volume else 0)
        return path

    def _of_the_machine(self, path: str, type: str) -> Path:  # noqa: A002 - as in a pod
        """The kernel's own are the real ones."""
        found = Path(path) if path.startswith("/sys/") else self.root / path.lstrip("/")
        if type == "DirectoryOrCreate":
            _folder(found, 0o755)
        assert found.is_file() if type == "File" else found.is_dir(), f"the pod waits for `{path}`"
        return found

    def _claimed(self, pod: Mapping[str, Any], name: str) -> Path:
        path = self.kept / f"{name}-{pod['metadata']['name']}"
        if not path.exists():
            _folder(_folder(path, 0o755) / "lost+found", 0o700)
        return path

    def _files(self, pod: Mapping[str, Any], source: Mapping[str, Any], mode: int) -> Iterator[tuple[str, File]]:
        """What one source of a projection writes, by path."""
        match source:
            case {"serviceAccountToken": said}:
                yield said["path"], File(self.token(pod, said.get("audience")).encode(), 0o600)
            case {"downwardAPI": {"items": items}}:
                for one in items:
                    yield one["path"], File(str(field(pod, one["fieldRef"]["fieldPath"])).encode(), mode)
            case {"configMap": said}:
                yield from _chosen(self.config_maps[said["name"]], said.get("items"), mode)
            case {"secret": said}:
                yield from _chosen(self.secrets[said["secretName"]], said.get("items"), mode)
            case _:
                raise AssertionError(f"a volume this kubelet does not know: {source}")


def field(pod: Mapping[str, Any], path: str) -> Any:
    """What `metadata.name` and the like say."""
    found: Any = pod
    for name in path.split("."):
        found = found[name]
    return found


def write(folder: Path, files: Mapping[str, File], user: int) -> None:
    """All of it at once: a folder beside, a link to that, and a link through it for each name."""
    kept = _folder(folder / "..2026_11_25", 0o755)
    for name, file in files.items():
        path = kept / name
        _folder(path.parent, 0o755)
        path.write_bytes(file.content)
        path.chmod(file.mode)
        os.chown(path, user if file.mode == 0o600 else 0, NOBODY_IN_PARTICULAR)
    (folder / "..data").symlink_to(kept.name)
    for first in {name.split("/")[0] for name in files}:
        (folder / first).symlink_to(f"..data/{first}")


def give(path: Path, group: int, *, writable: bool) -> None:
    """`fsGroup`: everything is the group's to read, what can be written to write, and folders hand it down."""
    for one in [path, *path.rglob("*")]:
        if one.is_symlink():
            continue
        more = (0o660 if writable else 0o440) | (0o2110 if one.is_dir() else 0)
        os.chown(one, NOBODY_IN_PARTICULAR, group)
        one.chmod((one.stat().st_mode & 0o7777) | more)


def _chosen(data: Mapping[str, bytes], items: Any, mode: int) -> Iterator[tuple[str, File]]:
    wanted = {name: name for name in data} if items is None else {one["key"]: one["path"] for one in items}
    for key, path in wanted.items():
        yield path, File(data[key], mode)


def _folder(path: Path, mode: int) -> Path:
    """Made with that mode, whatever the umask; left as it is when it was there."""
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(mode)
    return path
