"""What a stylizer asks of its network."""

from torch import Tensor, nn


class Network(nn.Module):
    """An encoder to one or more feature levels, where AdaIN happens, and a decoder back to images."""

    stride: int  # both sides of an image must be multiples of it
    smallest: int  # pixels a side

    def encode(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] to feature levels, each (B, C, h, w)."""
        raise NotImplementedError

    def decode(self, features: list[Tensor]) -> Tensor:
        """Feature levels to images (B, 3, H, W), not clamped."""
        raise NotImplementedError
