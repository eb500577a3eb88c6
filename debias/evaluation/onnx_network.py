"""An exported network as a module: onnxruntime computes, on the CPU."""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from debias.pipelines.view import Logits
from debias.style_transfer import Images
from debias.train.weights_file import Card, card_of

__all__ = ["OnnxNetwork"]


class OnnxNetwork(nn.Module):
    """Images (B, 3, H, W) float32 in [0, 1] to logits (B, K) through an onnxruntime session; no gradients."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    @classmethod
    def load(cls, path: Path) -> tuple[Self, Card]:
        """The network of a file that `debias export --to onnx` wrote, and its card; ValueError for any other file."""
        try:
            import onnxruntime
        except ImportError:
            raise ValueError(f"{path}: onnxruntime is not installed; pip install 'debias[onnx]'") from None
        try:
            session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class of its own for each kind of damage
            raise ValueError(f"{path}: no ONNX file that onnxruntime can run ({str(error).splitlines()[0]})") from None
        card = card_of(session.get_modelmeta().custom_metadata_map)
        if card is None:
            raise ValueError(f"{path} does not say its classes and image size; write it with debias export --to onnx")
        return cls(session), card

    def forward(self, images: Images) -> Logits:
        """Logits (B, K) float32 on the device of `images`."""
        (logits,) = self.session.run(None, {self.session.get_inputs()[0].name: images.float().cpu().numpy()})
        made: Tensor = torch.from_numpy(logits)
        return made.to(images.device)
