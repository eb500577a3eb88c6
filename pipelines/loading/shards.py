"""Webdataset tar shards as a listing: an index of offsets read from the tar headers; nothing is ever extracted.

A sample is the members that share a key (the path up to the first dot of its last part): one image and its class, from
`.cls` (a number or a name) or `.json` (`label` or `shape_class`). Class names come from `classes.txt` (one a line) or
`classes.json` (a list, or name: number) beside the first shard, else they are the sorted names or numbers found.
"""

import glob
import itertools
import json
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from .listing import IMAGE_EXTENSIONS, Listing, stamp

MAX_MEMBERS = 10_000_000  # in one shard: webdataset shards hold thousands
MAX_LABEL_BYTES = 1 << 20


@dataclass
class _Sample:
    image: str | None = None
    offset: int = 0
    size: int = 0
    label: int | str | None = None


@dataclass
class _Shard:
    path: str
    samples: dict[str, _Sample] = field(default_factory=dict)


def is_pattern(data: str) -> bool:
    """Tell whether `data` names shards by a file, a glob or braces rather than by their folder."""
    return data.endswith(".tar") or (any(sign in data for sign in "*?{[") and not os.path.exists(data))


def match_shards(pattern: str) -> list[Path]:
    """Expand braces (`{000..127}`, `{a,b}`) and globs. Raises ValueError for a part that matches no file."""
    paths: list[Path] = []
    for part in _expand_braces(pattern):
        matches = [part] if os.path.exists(part) else sorted(glob.glob(part))
        if not matches:
            raise ValueError(f"no shard matches {part}; check the pattern and that each shard is there")
        paths += [Path(match) for match in matches]
    return paths


def _expand_braces(pattern: str) -> list[str]:
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        first, last = int(span[1]), int(span[2])
        if not 0 <= last - first < 1_000_000:
            raise ValueError(f"bad range {found[0]} in {pattern}; write {{000..127}}")
        options = [str(number).zfill(len(span[1])) for number in range(first, last + 1)]
    else:
        options = found[1].split(",")
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return list(itertools.chain.from_iterable(_expand_braces(head + option + tail) for option in options))


def list_shards(paths: list[Path]) -> Listing:
    """Index `paths`, in this order. Raises ValueError that names the shard (and member) that is not as above."""
    root = Path(os.path.commonpath([path.parent.absolute() for path in paths]))
    shards = [_index(path) for path in paths]
    rows = [(shard, sample) for shard in shards for sample in shard.samples.values() if sample.image is not None]
    if not rows:
        raise ValueError(f"no images in the shards of {root}; a sample needs key.jpg and key.cls (or key.json)")
    for shard, sample in rows:
        if sample.label is None:
            raise ValueError(f"{sample.image} in {shard.path} has no class; add a .cls or .json member with its key")
    classes, labels = _number([sample.label for _, sample in rows if sample.label is not None], paths[0].parent)
    stamps = {shard.path: stamp(os.stat(shard.path)) for shard in shards}
    return Listing(
        root=root,
        classes=classes,
        names=tuple(f"{Path(os.path.relpath(shard.path, root)).as_posix()}/{sample.image}" for shard, sample in rows),
        labels=np.array(labels, dtype=np.int64),
        sizes=np.array([sample.size for _, sample in rows], dtype=np.int64),
        stamps=np.array([stamps[shard.path] for shard, _ in rows], dtype=np.int64),
        archives=tuple(shard.path for shard, _ in rows),
        offsets=np.array([sample.offset for _, sample in rows], dtype=np.int64),
    )


def _index(path: Path) -> _Shard:
    shard = _Shard(str(path))
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for count in itertools.count():
                member = tar.next()
                if member is None:
                    break
                if count >= MAX_MEMBERS:
                    raise ValueError(f"{path} has more than {MAX_MEMBERS} members; cut it into smaller shards")
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                _add(shard, member, file)
            file.seek(tar.offset)
            if file.read(512) != bytes(512):  # tarfile itself takes a damaged header for the end
                raise ValueError(f"{path} is truncated or damaged at byte {tar.offset}; copy or build that shard again")
    except tarfile.TarError as error:
        raise ValueError(f"{path} is truncated or no plain tar ({error}); copy or build that shard again") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    return shard


def _add(shard: _Shard, member: tarfile.TarInfo, file: BinaryIO) -> None:
    if member.isdir() or member.issym():
        return
    name = PurePosixPath(member.name)
    if not member.isreg() or member.issparse():
        raise ValueError(f"{member.name!r} in {shard.path} is no plain file; shards hold plain files alone")
    if name.is_absolute() or ".." in name.parts or not member.name.isprintable() or "\\" in member.name:
        raise ValueError(f"{shard.path} holds the unsafe name {member.name!r}; build the shard with relative names")
    if name.name.startswith("."):
        return
    stem, _, extension = name.name.partition(".")
    sample = shard.samples.setdefault(str(name.parent / stem), _Sample())
    if "." + extension.lower() in IMAGE_EXTENSIONS:
        if sample.image is not None:
            raise ValueError(f"{shard.path} holds two images for one key: {sample.image} and {member.name}")
        sample.image, sample.offset, sample.size = member.name, member.offset_data, member.size
    elif extension in ("cls", "json"):
        label = _read_label(shard.path, member, file, extension)
        sample.label = label if label is not None else sample.label


def _read_label(shard: str, member: tarfile.TarInfo, file: BinaryIO, extension: str) -> int | str | None:
    if member.size > MAX_LABEL_BYTES:
        raise ValueError(f"{member.name} in {shard} has {member.size} bytes; a label has at most {MAX_LABEL_BYTES}")
    file.seek(member.offset_data)
    try:
        text = file.read(member.size).decode()
        if extension == "cls":
            return int(text) if text.strip().lstrip("-").isdecimal() else text.strip()
        meta = json.loads(text)
        label = meta.get("label", meta.get("shape_class")) if isinstance(meta, dict) else None
    except ValueError as error:
        raise ValueError(f"{member.name} in {shard} is not readable ({error})") from None
    if label is not None and (isinstance(label, bool) or not isinstance(label, int | str)):
        raise ValueError(f"the label of {member.name} in {shard} must be a number or a name, got {label!r}")
    return label


def _number(labels: list[int | str], folder: Path) -> tuple[tuple[str, ...], list[int]]:
    """Return the class names and each label's number."""
    classes = _read_classes(folder)
    if classes is None:
        distinct = set(labels)
        if len({type(label) for label in distinct}) > 1:
            raise ValueError(f"the shards of {folder} mix class numbers and class names; add {folder / 'classes.txt'}")
        ordered = sorted(distinct, key=lambda label: (label, "") if isinstance(label, int) else (0, label))
        number = {label: index for index, label in enumerate(ordered)}
        return tuple(str(label) for label in ordered), [number[label] for label in labels]
    by_name = {name: index for index, name in enumerate(classes)}
    numbers = []
    for label in labels:
        index = label if isinstance(label, int) else by_name.get(label, -1)
        if not 0 <= index < len(classes):
            raise ValueError(f"class {label!r} of a shard in {folder} is not among the {len(classes)} names beside it")
        numbers.append(index)
    return classes, numbers


def _read_classes(folder: Path) -> tuple[str, ...] | None:
    text, table = folder / "classes.txt", folder / "classes.json"
    if text.is_file():
        names = [line.strip() for line in text.read_text().splitlines() if line.strip()]
    elif table.is_file():
        try:
            content = json.loads(table.read_text())
            names = sorted(content, key=content.__getitem__) if isinstance(content, dict) else list(content)
            if isinstance(content, dict) and sorted(content.values()) != list(range(len(content))):
                raise ValueError("the numbers must be 0, 1, 2 ...")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{table} must be a list of names or name: number ({error})") from None
    else:
        return None
    if not names or len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the class names in {text if text.is_file() else table} must be distinct, at least one")
    return tuple(names)
