"""A disk that loses everything that was not synced: `synced.c` built and preloaded, and what it kept put back.

A process that is killed loses nothing it wrote: the kernel has it. So after the kill the store's folder becomes what
was certain: the names it had when the folder itself was synced last, each with the bytes it had when it was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("synced.c")


def built(folder: Path) -> Path:
    """The library. Raises CalledProcessError: there is no compiler."""
    library = folder / "synced.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


def preloaded(library: Path) -> Mapping[str, str]:
    """The environment of whoever shall be watched."""
    return {"LD_PRELOAD": str(library)}


def watch(store: Path, kept: Path) -> None:
    """From now on, in this process, what is synced in `store` is kept."""
    kept.mkdir(mode=0o700, exist_ok=True)
    os.environ.update(SJ_STORE=str(store), SJ_SYNCED=str(kept))


def lose(store: Path, kept: Path) -> None:
    """The power is gone and back: what was synced is there, in the inodes it was in, and nothing else."""
    lines = (kept / "names").read_text().splitlines() if (kept / "names").exists() else []
    names = {name: inode for inode, _, name in (line.partition(" ") for line in lines)}
    for path in store.iterdir():
        path.rename(path.with_name(f"{path.stat().st_ino}.lost"))
    for name, inode in names.items():
        lost, certain = store / f"{inode}.lost", kept / inode
        if lost.exists():
            lost.rename(store / name)
        (store / name).touch(mode=0o600)
        (store / name).write_bytes(certain.read_bytes() if certain.exists() else b"")
        if not lost.exists() and str((store / name).stat().st_ino) != inode:  # it was unlinked, and is not after all
            names[name] = str((store / name).stat().st_ino)
            shutil.copyfile(store / name, kept / names[name])
    for path in store.glob("*.lost"):
        path.unlink()
    if names:
        (kept / "names").write_text("".join(f"{inode} {name}\n" for name, inode in names.items()))
