"""Seeded tensors and small networks for the tests of what trains."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

M = TypeVar("M", bound=nn.Module)


def rng(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform in [0, 1), of this shape."""
    return torch.rand(shape, generator=rng(seed), dtype=dtype)


def seeded(make: Callable[[], M], seed: int = 0) -> M:
    """What `make` draws from torch's own generator, which is then as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def scattered(model: M, seed: int = 0) -> M:
    """`model`, each of its norms and their branches moved to another place: weights of 1 would hide a mix-up."""
    generator = rng(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
            own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
            for name, tensor in own.items():
                if tensor.is_floating_point():
                    low = 0.3 if name in ("weight", "running_var") else -0.4
                    tensor.detach().copy_(low + 0.8 * torch.rand(tensor.shape, generator=generator))
    return model


class Small(nn.Module):
    """Convolution, norm and head: (B, 3, H, W) to (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))
        return made


class Pixels(nn.Module):
    """Convolution and norm, twice, and a head at every pixel: (B, 3, H, W) to (B, K, H, W)."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))))
        return made
