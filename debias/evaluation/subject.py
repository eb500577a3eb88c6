"""What is evaluated: a network with all that its numbers depend on."""

from dataclasses import dataclass

from torch import nn

from debias.train.weights_file import InputSpec

__all__ = ["Subject"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in eval mode: images (B, 3, H, W) float32 in [0, 1] to logits (B, K), normalisation within.

    Of another `task` to what that task's networks say.
    """

    name: str  # as it was given: a run folder, resnet50, timm:NAME, a file
    network: nn.Module
    spec: InputSpec
    classes: tuple[str, ...]  # in the order of the logits; WordNet ids for ImageNet's 1000
    weights: str  # sha256 over the names and bytes of every weight, all branches
    model: str  # the architecture, as `--model` takes it
    branches: tuple[str, ...] = ("main",)
    objective: str = ""  # of a run of ours
    differentiable: bool = True  # an ONNX session has no gradients and so no attacks
    task: str = "classification"
