"""The files of a stylised set: encoding, writing and checking, one image a file or many a shard."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from debias.style_transfer.files import atomic_file, sha256_file, write_atomically

from .manifest import Record
from .plan import Item, Unit

LABELS = ("shape_class", "texture_class", "content", "style", "alpha", "shape_weight")  # of a shard's .json members


def encode(pixels: NDArray[np.uint8], encoding: str) -> bytes:
    """Pixels (H, W, 3) as JPEG of quality 95 with full chroma ("jpg"), or as PNG ("png")."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if encoding == "png":
        image.save(buffer, "PNG")
    else:
        # 4:2:0 would blur the colours of fine textures, which are the point of these images.
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def make(item: Item, pixels: NDArray[np.uint8], encoding: str) -> tuple[Record, bytes]:
    """The finished record of an item and its encoded image."""
    data = encode(pixels, encoding)
    return replace(item.record, sha256=sha256(data).hexdigest()), data


def write_image(out: Path, record: Record, data: bytes) -> None:
    """Write one image; not synced, since a build that goes on checks every sha256 anyway."""
    write_atomically(out / record.file, data, durable=False)


def write_shard(out: Path, shard: str, made: Sequence[tuple[Record, bytes]]) -> None:
    """Write a webdataset shard: for each record its image and a .json with both labels; equal bytes for equal input."""
    with atomic_file(out / shard) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for record, data in made:
            member = record.file.removeprefix(f"{shard}/")
            labels = {name: getattr(record, name) for name in LABELS}
            _add(tar, member, data)
            _add(
                tar,
                member.rpartition(".")[0] + ".json",
                json.dumps(labels, ensure_ascii=False).encode("utf-8", "surrogateescape"),
            )


def missing(out: Path, unit: Unit, records: Mapping[str, Record]) -> tuple[Item, ...]:
    """The items of a unit that must be made: unrecorded, made from something else, lost or altered since."""
    if unit.shard:
        return () if _shard_is_done(out, unit, records) else unit.items
    return tuple(item for item in unit.items if not _is_recorded(item, records) or not _is_intact(out, item, records))


def _is_recorded(item: Item, records: Mapping[str, Record]) -> bool:
    found = records.get(item.record.file)
    return found is not None and replace(found, sha256="") == item.record


def _is_intact(out: Path, item: Item, records: Mapping[str, Record]) -> bool:
    path = out / item.record.file
    return path.is_file() and sha256_file(path) == records[item.record.file].sha256


def _shard_is_done(out: Path, unit: Unit, records: Mapping[str, Record]) -> bool:
    path = out / unit.shard
    if not path.is_file() or not all(_is_recorded(item, records) for item in unit.items):
        return False
    expected = {item.record.file: records[item.record.file].sha256 for item in unit.items}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = f"{unit.shard}/{member.name}"
                if name.endswith(".json"):
                    continue
                content = tar.extractfile(member)
                if content is None or sha256(content.read()).hexdigest() != expected.pop(name, None):
                    return False
    except (tarfile.TarError, OSError, EOFError):
        return False
    return not expected


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)  # no time, no owner: equal input gives equal bytes
    header.size = len(data)
    tar.addfile(header, io.BytesIO(data))
