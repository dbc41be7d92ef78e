"""Writes, or checks, the Python made from attestor/_proto/*.proto.

    python tests/house/generate_proto.py            says what is out of date, exit code 1 if anything is
    python tests/house/generate_proto.py --write    brings it up to date

The compiler comes with `grpcio-tools` 1.80 (extra `test`): its code needs protobuf 6.31, later ones refuse protobuf 6.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("attestor/_proto")


def compiled(into: Path) -> dict[Path, bytes]:
    """What the compiler makes of every .proto file, by path relative to the repository."""
    import grpc_tools
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / FOLDER).glob("*.proto"))
    standard = Path(next(iter(grpc_tools.__path__))) / "_proto"
    code = protoc.main(["protoc", f"-I{ROOT}", f"-I{standard}", f"--python_out={into}", f"--pyi_out={into}", *sources])
    if code:
        raise SystemExit(code)
    return {path.relative_to(into): path.read_bytes() for path in sorted(into.rglob("*_pb2.py*"))}


def stale() -> list[Path]:
    """Every committed file that differs from what the compiler makes, is missing, or has no source any more."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = compiled(Path(folder))
    there = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / FOLDER).glob("*_pb2.py*")}
    return sorted(path for path in fresh.keys() | there.keys() if fresh.get(path) != there.get(path))


def write() -> None:
    """Bring the committed files up to date."""
    with tempfile.TemporaryDirectory() as folder:
        for path, content in compiled(Path(folder)).items():
            (ROOT / path).write_bytes(content)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    elif old := stale():
        sys.exit("out of date, run `python tests/house/generate_proto.py --write`: " + ", ".join(map(str, old)))
