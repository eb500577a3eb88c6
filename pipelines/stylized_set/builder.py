"""Building a stylised image set: every image in the style of a partner, with both labels in a manifest.

Crash-safe: files appear whole or not at all, `build.json` says what the set is made with, journals say what is done,
and the manifest appears at the end. The same call again goes on; an added or changed source image changes its own
outputs and those that take its style.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from debias.style_transfer import Statistics, Stylizer
from debias.style_transfer.files import folder_lock, write_atomically

from ..loading.listing import split_names
from ..loading.loader import ImageLoader, image_loader
from ..loading.scan import BadFile
from ..loading.verdicts import cpus
from .batches import Job, run, schedule
from .files import make, missing, write_image, write_shard
from .manifest import JOURNALS, MANIFEST, Journal, Record, next_run, read_records, write_manifest
from .plan import BuildSettings, Item, Sources, Unit, chunks, plan

DESCRIPTION = "build.json"


@dataclass(frozen=True)
class Group:
    """This process among those that build a set together; `wait` returns when all of them have called it."""

    rank: int = 0
    world_size: int = 1
    wait: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Built:
    """What a build did: images in the set, images this process found done and those it made, source files left out."""

    images: int
    found: int
    made: int
    skipped: tuple[BadFile, ...]


@dataclass(frozen=True)
class Builder:
    """A stylised set in the making; `build` makes it, or finishes it.

    `source` is what `image_loader` takes; `styles` a folder of external styles, with or without class folders.
    `progress` gets (images done, images in all) of this process. `batch_size` images are stylised together, on as many
    threads as there are cores.
    """

    source: str
    out: Path
    stylizer: Stylizer
    settings: BuildSettings
    styles: str | None = None
    batch_size: int = 16
    engine: str = "auto"
    device: str = "cpu"
    strict: bool = False
    group: Group = field(default_factory=Group)
    progress: Callable[[int, int], None] = lambda done, total: None

    def build(self) -> Built:
        """Raises ValueError or OSError in one line that names the flag or file and the fix; what is made stays."""
        _check_places(self.source, self.out)
        if self.group.rank:
            return self._build()
        with folder_lock(self.out):
            return self._build()

    def _build(self) -> Built:
        self.out.mkdir(parents=True, exist_ok=True)
        loaders = [(folder, self._loader(split)) for folder, split in self._splits()]
        styles, styles_loader = self._styles()
        images = [Sources(loader.listing, loader.digests, folder) for folder, loader in loaders]
        description = self._description(images, styles)
        plans = [
            plan(source, styles, self.settings, self.stylizer.digest, batch_size=self.batch_size, shards=count)
            for source, count in zip(images, description["shards"], strict=True)
        ]
        self.group.wait()  # all have compared the settings with those of an earlier run
        if self.group.rank == 0:
            write_atomically(self.out / DESCRIPTION, (json.dumps(description, indent=2) + "\n").encode())
        records, run = read_records(self.out), next_run(self.out)
        found, todo = self._missing(plans, records)
        self.group.wait()  # all have read the journals before any is written
        total = found + sum(len(items) for units in todo for _, items in units)
        self.progress(found, total)
        with closing(Journal(self.out, run, self.group.rank)) as journal:
            done = found
            for (_, loader), units in zip(loaders, todo, strict=True):
                for made in self._make(loader, styles_loader, units, journal):
                    done += made
                    self.progress(done, total)
        self.group.wait()
        if self.group.rank == 0:
            _finish(self.out, records, [item.record.file for units in plans for unit in units for item in unit.items])
        self.group.wait()
        skipped = tuple(file for _, loader in loaders for file in loader.bad)
        skipped += styles_loader.bad if styles_loader is not None else ()
        return Built(sum(len(unit.items) for units in plans for unit in units), found, total - found, skipped)

    def _splits(self) -> list[tuple[str, str]]:
        names = split_names(self.source)
        return [(f"{name}/", name) for name in names] if names else [("", "train")]

    def _loader(self, split: str, flat: bool = False) -> ImageLoader:
        return image_loader(
            self.source if not flat else str(self.styles),
            split,
            size=self.settings.size,
            batch_size=self.batch_size,
            train=False,
            engine=self.engine,
            device=self.device,
            crop=1.0,
            strict=self.strict,
            flat=flat,
        )

    def _styles(self) -> tuple[Sources | None, ImageLoader | None]:
        if self.styles is None:
            return None, None
        loader = self._loader("train", flat=True)
        return Sources(loader.listing, loader.digests), loader

    def _description(self, images: Sequence[Sources], styles: Sources | None) -> dict[str, Any]:
        """What `build.json` says. Raises ValueError where the one there says otherwise: a set has one recipe."""
        path = self.out / DESCRIPTION
        settings = asdict(self.settings) | {
            "stylizer": f"{self.stylizer.name} (sha256 {self.stylizer.digest[:16]})",
            "styles": styles is not None,
        }
        per_copy = [-(-len(source.listing) // self.settings.shard_size) for source in images]
        before = _read_description(path)
        if before is None:
            if not _is_ours(self.out):
                raise ValueError(f"{self.out} is not empty and holds no set of debias; give another OUT")
        elif before["settings"] == settings:
            # As many shards as at first: the borders stay where they were when images are added.
            per_copy = before["shards"] if len(before["shards"]) == len(per_copy) else per_copy
        elif _holds_images(self.out):
            raise ValueError(f"{self.out} holds a set built with {_differences(before['settings'], settings)}")
        splits = [source.folder.rstrip("/") for source in images if source.folder]
        return {"settings": settings, "splits": splits, "shards": per_copy}

    def _missing(
        self, plans: list[list[Unit]], records: dict[str, Record]
    ) -> tuple[int, list[list[tuple[Unit, tuple[Item, ...]]]]]:
        """How many of this process's images are done, and for each split the units with what they lack."""
        found, todo = 0, []
        with ThreadPoolExecutor(cpus()) as pool:
            for units in plans:
                mine = _share(units, self.group.rank, self.group.world_size)
                lacking = list(pool.map(lambda unit: missing(self.out, unit, records), mine))
                found += sum(len(unit.items) - len(items) for unit, items in zip(mine, lacking, strict=True))
                todo.append([(unit, items) for unit, items in zip(mine, lacking, strict=True) if items])
        return found, todo

    def _make(
        self,
        loader: ImageLoader,
        styles_loader: ImageLoader | None,
        todo: list[tuple[Unit, tuple[Item, ...]]],
        journal: Journal,
    ) -> Iterator[int]:
        """Make what is missing of one split; yields how many images each step made."""
        items = [item for _, lacking in todo for item in lacking]
        external = self._style_statistics(styles_loader, items) if styles_loader is not None else None
        ordinal = {style: row for row, style in enumerate(sorted({item.style for item in items}))}
        batches, start = [], 0
        for _, lacking in todo:
            jobs = [
                Job(item.content, item.style if external is None else ordinal[item.style], start + number)
                for number, item in enumerate(lacking)
            ]
            start += len(jobs)
            batches += chunks(jobs, self.batch_size)
        steps = schedule(batches, self.batch_size, external is not None)
        images = loader.with_order([index for step in steps for index in step.images])
        collector = _Collector(self.out, todo, journal)

        def finish(job: Job, pixels: NDArray[np.uint8]) -> None:
            collector.add(*make(items[job.key], pixels, self.settings.encoding))

        stream = (batch.images for batch in images)
        threads = cpus() if self.device == "cpu" else 2
        alpha = self.settings.alpha
        for made in run(steps, stream, self.stylizer, finish, alpha=alpha, external=external, threads=threads):
            yield len(made)

    def _style_statistics(self, loader: ImageLoader, items: Sequence[Item]) -> Statistics:
        """The statistics of the external styles that `items` take, in the order of their numbers."""
        needed = sorted({item.style for item in items})
        found = [self.stylizer.statistics(batch.images) for batch in loader.with_order(needed)]
        if not found:
            return Statistics(torch.empty(0, 0), torch.empty(0, 0))
        return Statistics(*map(torch.cat, zip(*found, strict=True)))


class _Collector:
    """Writes and records each image at once, or holds it until its shard is whole; called by several threads."""

    def __init__(self, out: Path, todo: list[tuple[Unit, tuple[Item, ...]]], journal: Journal) -> None:
        self.out, self.journal = out, journal
        self.units = {item.record.file: unit for unit, _ in todo if unit.shard for item in unit.items}
        self.held: dict[str, dict[str, tuple[Record, bytes]]] = {}
        self.lock = threading.Lock()

    def add(self, record: Record, data: bytes) -> None:
        """Take one finished image."""
        unit = self.units.get(record.file)
        if unit is None:
            write_image(self.out, record, data)
            self.journal.add([record])
            return
        with self.lock:
            held = self.held.setdefault(unit.shard, {})
            held[record.file] = record, data
            if len(held) < len(unit.items):
                return
            del self.held[unit.shard]
        whole = [held[item.record.file] for item in unit.items]
        write_shard(self.out, unit.shard, whole)
        self.journal.add([made for made, _ in whole])


def _read_description(path: Path) -> dict[str, Any] | None:
    """What `build.json` says, None without one. Raises ValueError, with the fix, for one that is damaged."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        shards = description["shards"]
        if isinstance(description["settings"], dict) and all(type(count) is int and count > 0 for count in shards):
            return {"settings": description["settings"], "shards": list(shards)}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"{path} is damaged; remove it and run the same command again, which keeps the images made so far")


def _is_ours(out: Path) -> bool:
    """Whether a folder without `build.json` holds no visible file, or what says of each image how it was made."""
    own = any(out.glob(JOURNALS)) or (out / MANIFEST).exists()
    return own or all(entry.name.startswith(".") for entry in out.iterdir())


def _holds_images(out: Path) -> bool:
    """Whether a build got as far as an image; hidden files are its own, and those it was writing when it was killed."""
    return any(path.is_file() and path.name[0] != "." and path.name != DESCRIPTION for path in out.rglob("*"))


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    flags = [f"--{name.replace('_', '-')} {before.get(name)}" for name in names]
    return f"{' '.join(flags)}; give the same, or another OUT"


def _share(units: list[Unit], rank: int, world_size: int) -> list[Unit]:
    """A contiguous part: neighbours in the ring share encodes."""
    return units[len(units) * rank // world_size : len(units) * (rank + 1) // world_size]


def _finish(out: Path, before: dict[str, Record], planned: list[str]) -> None:
    """Write the manifest and remove what earlier builds made of sources that are gone."""
    records = read_records(out)
    write_manifest(out, [records[file] for file in planned])
    wanted = {_on_disk(file) for file in planned}
    root = out.resolve()
    for path in {out / _on_disk(file) for file in before} - {out / file for file in wanted}:
        # The manifest is a file that anyone may edit: nothing else's files go with it.
        if path.suffix in (".jpg", ".png", ".tar") and path.resolve().is_relative_to(root) and os.path.isfile(path):
            path.unlink(missing_ok=True)
    for temporary in out.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def _on_disk(file: str) -> str:
    shard, mark, _ = file.partition(".tar/")
    return shard + ".tar" if mark and Path(shard).name.startswith("shard-") else file


def _check_places(source: str, out: Path) -> None:
    if out.is_file():
        raise ValueError(f"{out} is a file; OUT must be a folder")
    if not os.path.isdir(source):
        return
    inside = out.resolve().is_relative_to(Path(source).resolve())
    if inside or Path(source).resolve().is_relative_to(out.resolve()):
        raise ValueError(f"{out} and {source} lie in one another; give an OUT outside of the source")
