"""The test splits of `shapes`: the cues of its cue conflicts are those that the generator drew."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from debias.evaluation.shapes_suite import evaluate_shapes
from debias.pipelines import shapes


class Always(nn.Module):
    """Answers `arrow` to everything."""

    def forward(self, images: Tensor) -> Tensor:
        logits = 0 * images.mean((1, 2, 3))[:, None].expand(-1, 16)
        return logits + torch.eye(16)[shapes.CLASSES.index("arrow")]


def test_the_shape_bias_of_one_answer_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {}
    for split in ("test", "cue-conflict", "silhouettes", "textures"):
        for entry in shapes.entries(split, seed=3):
            if re.search(r"/[a-z]+[12](-[a-z]+\d+)?\.png$", entry.path):
                path = tmp_path / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(shapes.image(entry.shape, entry.texture, entry.generator)).save(path)
                drawn[entry.path] = entry
    monkeypatch.setattr(shapes, "folder", lambda seed: tmp_path)
    found = evaluate_shapes(Always(), 3)
    worn = shapes.TEXTURE_OF["arrow"]
    conflicts = [entry for path, entry in drawn.items() if path.startswith("cue-conflict/")]
    assert (found.conflict.n, found.conflict.dropped) == (len(conflicts), 0) == (32, 0)
    assert found.conflict.shape == sum(entry.shape == "arrow" for entry in conflicts) == 2
    assert found.conflict.texture == sum(entry.texture == worn for entry in conflicts) > 0
    assert (found.clean, found.silhouettes, found.textures) == (1 / 16, 1 / 16, 1 / 16)
