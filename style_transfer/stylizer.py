"""The stylizer: images in the style of other images, at data-loading speed.

Huang and Belongie, ICCV 2017, with the in-batch use of Li et al., ICLR 2021 (each image takes the style of another one
of its batch) as the fast path: encode once, permute the statistics, decode.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .adain import Statistics, mean_std, restyle_features
from .images import Images, check_images, pad_to_multiple
from .network import Network
from .precision import fastest_dtype
from .weights import load_network

ABSURD = 1e6  # of values that should lie in [0, 1]; a network that was never fitted stays far below


@dataclass(frozen=True)
class Encoded:
    """Images between encoder and decoder: feature levels (B, C, h, w), their statistics, and the images' (H, W)."""

    levels: list[Tensor]
    statistics: Statistics
    size: tuple[int, int]


@dataclass(frozen=True)
class Stylizer:
    """AdaIN style transfer with a frozen network; every method runs without gradients and keeps the images' size.

    Images are (B, 3, H, W) float32 in [0, 1], in and out, on the network's device; channels_last memory is fastest.
    The network alone computes in its own dtype. `clamp=False` returns the decoder's values as they
    are, as the debiased authors' code does. `origin` is where the network comes from, for messages.
    """

    network: Network
    name: str = "custom"
    clamp: bool = True
    origin: str = "this network"

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "compact",
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        clamp: bool = True,
    ) -> "Stylizer":
        """Load "compact" (shipped), "vgg19" (the published files in the cache folder) or a path.

        A path is a file of `debias fit-stylizer` or a folder with `vgg_normalised.pth` and `decoder.pth`. Without a
        `dtype` it computes in bfloat16 where the device has instructions for it, else in float32. Raises ValueError,
        one line that names the file and the fix; also for weights that make no image of an image.
        """
        name, network = load_network(name_or_path)
        network.eval().requires_grad_(False).to(device, dtype or fastest_dtype(device))
        network.to(memory_format=torch.channels_last)
        stylizer = cls(network, name=name, clamp=clamp, origin=str(name_or_path))
        stylizer._check_on_noise()
        return stylizer

    def _check_on_noise(self) -> None:
        """Weights may be finite one by one and still leave nothing of an image: those are refused where they enter."""
        noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        noise = noise.to(next(self.network.parameters()).device)
        made = replace(self, clamp=False)(noise, noise.flip(0), 1.0)
        if not bool(made.abs().max() < ABSURD):  # NaN is not below anything
            raise ValueError(self.no_image)

    @property
    def no_image(self) -> str:
        """What is said, in one line, where the output cannot be an image."""
        return f"{self.origin}: a stylizer whose output is no image; fit it again, or take compact"

    @cached_property
    def digest(self) -> str:
        """sha256 over the weights as loaded: equal where stylised images are."""
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.cpu().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, content: Images, style: Images, alpha: float | Tensor = 0.5) -> Images:
        """Content (B, 3, H, W) in the styles of `style` (B or 1, 3, H', W'), one each or one for all; any two sizes.

        `alpha` is the strength in [0, 1], one number or (B,): 0 is the network's reconstruction of the content.
        """
        encoded, styles = self.encode(content), self.statistics(style)
        if styles.mean.shape[1] != encoded.statistics.mean.shape[1]:
            # `compact` looks at small and at large images with spectra of different resolution.
            size = (content.shape[2], content.shape[3])
            styles = self.statistics(F.interpolate(style, size, mode="bilinear", antialias=True).clamp(0, 1))
        return self.decode(encoded, styles, alpha)

    @torch.no_grad()
    def restyle(self, images: Images, partners: Tensor, alpha: float | Tensor = 0.5) -> Images:
        """Image i in the style of image `partners[i]` of the same batch; each is encoded once.

        Images (B, 3, H, W), partners (B,) int64 in [0, B).
        """
        if partners.shape != (len(images),):
            raise ValueError(f"partners must be ({len(images)},), one for each image, got {tuple(partners.shape)}")
        if partners.is_floating_point():
            raise ValueError(f"partners must be integers, got {partners.dtype}")
        encoded = self.encode(images)
        return self.decode(encoded, encoded.statistics.select(partners), alpha)

    @torch.no_grad()
    def statistics(self, images: Images) -> Statistics:
        """The style of images (B, 3, H, W): mean and std (B, C) over the channels of all levels, float32."""
        return self.encode(images).statistics

    @torch.no_grad()
    def restyle_to(self, images: Images, statistics: Statistics, alpha: float | Tensor = 0.5) -> Images:
        """Images (B, 3, H, W) with styles kept earlier by `statistics`, B of them or one for all."""
        return self.decode(self.encode(images), statistics, alpha)

    @torch.no_grad()
    def encode(self, images: Images) -> Encoded:
        """The first half of every method above: features and their statistics, to be decoded in any style later."""
        check_images(images)
        padded = pad_to_multiple(images, self.network.stride, self.network.smallest)
        weight = next(self.network.parameters())
        levels = self.network.encode(padded.to(weight.device, weight.dtype, memory_format=torch.channels_last))
        own = [mean_std(level) for level in levels]
        joined = Statistics(torch.cat([s.mean for s in own], 1), torch.cat([s.std for s in own], 1))
        return Encoded(levels, joined, (images.shape[2], images.shape[3]))

    @torch.no_grad()
    def decode(self, encoded: Encoded, style: Statistics, alpha: float | Tensor = 0.5) -> Images:
        """The second half: encoded images (B) in styles (B or 1)."""
        expected = encoded.statistics.mean.shape
        if style.mean.shape[1] != expected[1] or style.mean.shape[0] not in (1, expected[0]):
            raise ValueError(
                f"styles must be ({expected[0]} or 1, {expected[1]}) channel statistics of this stylizer, "
                f"got {tuple(style.mean.shape)}"
            )
        if isinstance(alpha, Tensor):
            if alpha.numel() != 1 and alpha.shape != expected[:1]:
                raise ValueError(f"alpha must be a number or ({expected[0]},), got {tuple(alpha.shape)}")
            alpha = alpha.reshape(-1).to(encoded.statistics.mean.device)
        widths = [level.shape[1] for level in encoded.levels]
        moved = [
            restyle_features(level, own, theirs, alpha=alpha)
            for level, own, theirs in zip(
                encoded.levels, _split(encoded.statistics, widths), _split(style, widths), strict=True
            )
        ]
        height, width = encoded.size
        out = self.network.decode(moved)[:, :, :height, :width].float()
        return out.clamp_(0, 1) if self.clamp else out


def _split(statistics: Statistics, widths: list[int]) -> list[Statistics]:
    means, stds = torch.split(statistics.mean, widths, 1), torch.split(statistics.std, widths, 1)
    return [Statistics(mean, std) for mean, std in zip(means, stds, strict=True)]
