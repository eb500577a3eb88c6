"""What a run records: a line of metrics.jsonl for each view, TensorBoard scalars, and the sums they come from."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import torch
from torch import Tensor

from debias.style_transfer.files import write_atomically

from .step import StepResult, ViewStatistics

TOP1 = "top1"
__all__ = ["Line", "Mean", "MetricsLog", "ViewMeter", "read_metrics"]


@dataclass(frozen=True)
class Line:
    """One line of metrics.jsonl: means over the images of a view since the line before, or over a validation split.

    `score` is the task's, `metric` its name there, top1 say: a share in [0, 1], NaN for a view that has none. `lr` and
    `images_per_second` are None where they make no sense, as in validation.
    """

    step: int  # optimizer steps done
    epoch: int
    split: str
    view: str
    loss: float
    score: float
    lr: float | None = None
    images_per_second: float | None = None
    metric: str = TOP1


_FIELDS = frozenset(field.name for field in fields(Line) if field.name not in ("score", "metric"))


class MetricsLog:
    """Appends to metrics.jsonl at `path`, and writes the same as TensorBoard events into the folder `tensorboard`.

    The events are left out without that folder or where the `tensorboard` extra is not installed; `has_tensorboard`
    says which. A context manager, which closes the files; they are opened by the first line.
    """

    def __init__(self, path: Path, tensorboard: Path | None) -> None:
        self.path = path
        self._folder = tensorboard
        self._writer_type = None if tensorboard is None else _summary_writer()
        self._writer: Any = None
        self._file: IO[bytes] | None = None
        self._purge_step: int | None = None

    @property
    def has_tensorboard(self) -> bool:
        """Whether events are written."""
        return self._writer_type is not None

    def write(self, *lines: Line) -> None:
        """Append the lines of one step; they are with the system when this returns, and a kill loses none of them.

        Floats are rounded to 6 significant digits; one that is not finite becomes null.
        """
        if self._file is None:
            self._open()
        assert self._file is not None
        self._file.write("".join(map(_text, lines)).encode())
        self._file.flush()
        if self._writer is not None:
            scalars = {(name, line.step): value for line in lines for name, value in _scalars(line)}
            for (name, step), value in scalars.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def rewind(self, step: int) -> None:
        """Drop what was written after `step`, and a line cut short by a kill: the run goes on from there.

        In TensorBoard the dropped steps disappear too.
        """
        self.close()
        self._purge_step = step + 1
        if self.path.exists():
            kept = [line for line in read_metrics(self.path) if line.step <= step]
            write_atomically(self.path, "".join(map(_text, kept)).encode())

    def close(self) -> None:
        """Close the files; the next line opens them again."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        self._file.truncate(len(_whole_lines(self.path.read_bytes())))
        if self._writer_type is not None:
            self._writer = self._writer_type(str(self._folder), purge_step=self._purge_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[Line]:
    """The lines of a metrics.jsonl, also while a run writes it: a last line that is cut short is left out.

    A loss that was not finite is NaN. Raises ValueError, with the file and its line, for anything else.
    """
    lines = []
    for number, text in enumerate(_whole_lines(path.read_bytes()).splitlines(), start=1):
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        named = values.keys() - _FIELDS if isinstance(values, dict) and values.keys() >= _FIELDS else ()
        if len(named) != 1:
            raise ValueError(f"{path}, line {number}, is no line of metrics; remove that line")
        (metric,) = named
        score, loss = (math.nan if value is None else value for value in (values.pop(metric), values.pop("loss")))
        lines.append(Line(**values, loss=loss, score=score, metric=metric))
    return lines


@dataclass(frozen=True)
class Mean:
    """The mean of a view over `count` images: loss, and the task's score in [0, 1]."""

    count: int
    loss: float
    score: float


class ViewMeter:
    """Adds up the views of steps on `device`; nothing waits for it until `read`.

    Losses and scores are added in float64, which is exact for counts of hits; Apple's GPUs have float32 alone, and
    there counts are exact up to 2^24. With several processes give all view names as `names`: each process then has the
    same table to be reduced, also where it has not seen a view.
    """

    def __init__(self, device: str | torch.device = "cpu", names: Sequence[str] = ()) -> None:
        self._device = torch.device(device)
        self._dtype = torch.float32 if self._device.type == "mps" else torch.float64
        self._names = tuple(names)
        self._sums: dict[str, ViewStatistics] = {}

    def add(self, result: StepResult) -> None:
        """Add the views of a step, without a host sync. A view need not be in every step."""
        for name, own in result.views.items():
            loss = own.loss.detach().to(self._device, self._dtype)
            own = ViewStatistics(name, own.count, loss, own.score.to(self._device, self._dtype))
            self._sums[name] = self._sums[name] + own if name in self._sums else own

    def read(self, reduce: Callable[[Tensor], object] | None = None) -> dict[str, Mean]:
        """The means since the last `reset` by view name, with one host sync; views without images are left out.

        `reduce` sums a tensor over all processes in place, as `torch.distributed.all_reduce` does; all call it.
        """
        names, table = self._table(reduce)
        rows = zip(names, table.tolist(), strict=True)
        return {name: Mean(int(count), loss / count, score / count) for name, (count, loss, score) in rows if count}

    def reset(self) -> None:
        """Begin again at zero."""
        self._sums = {}

    def state_dict(self, reduce: Callable[[Tensor], object] | None = None) -> dict[str, Any]:
        """The sums so far, exact, as names and a table (V, 3) on the device.

        With `reduce` they are those of all processes, which all call it; at a resume, on any number of processes, the
        first one alone loads them.
        """
        names, table = self._table(reduce)
        return {"names": list(names), "table": table}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the sums of `state`."""
        table = state["table"].to(self._device, self._dtype)
        counts = table[:, 0].tolist()
        self._sums = {
            name: ViewStatistics(name, int(count), row[1], row[2])
            for name, count, row in zip(state["names"], counts, table, strict=True)
        }

    def _table(self, reduce: Callable[[Tensor], object] | None) -> tuple[tuple[str, ...], Tensor]:
        """Names, and for each a row of count, loss and score, (V, 3) float64 on the device."""
        names = tuple(dict.fromkeys((*self._names, *self._sums)))
        table = torch.zeros(len(names), 3, dtype=self._dtype, device=self._device)
        for row, name in zip(table, names, strict=True):
            if name in self._sums:
                own = self._sums[name]
                row[0].fill_(own.count)  # a kernel's argument; a tensor made of it would be a copy from the host
                row[1].copy_(own.loss)
                row[2].copy_(own.score)
        if reduce is not None:
            reduce(table)
        return names, table


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _text(line: Line) -> str:
    values = {name: _rounded(value) if isinstance(value, float) else value for name, value in asdict(line).items()}
    metric = values.pop("metric")
    return json.dumps({metric if name == "score" else name: value for name, value in values.items()}) + "\n"


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _scalars(line: Line) -> list[tuple[str, float]]:
    named = {
        f"{line.split}/{line.view}/loss": line.loss,
        f"{line.split}/{line.view}/{line.metric}": None if math.isnan(line.score) else line.score,
        "lr": line.lr,
        "images_per_second": line.images_per_second,
    }
    return [(name, value) for name, value in named.items() if value is not None]


def _summary_writer() -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter
