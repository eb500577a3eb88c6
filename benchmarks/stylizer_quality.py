"""How far a stylizer goes towards the style, and what it keeps of the drawing, on a folder of photos:

    python benchmarks/stylizer_quality.py PHOTOS SQUEEZENET --stylizer compact

SQUEEZENET holds torchvision's `squeezenet1_1().features` with its ImageNet weights: a judge that no stylizer is fitted
with. Closure is 1 - d(output, style) / d(content, style); d compares channel means and standard deviations after the
first ReLU and the 2nd and 4th fire modules, each scaled by its spread over the styles. Edges is the correlation of the
Sobel maps of output and content. All photos are one batch, each in the style of the next one, 224 x 224 pixels.

With --baseline-encoder and --baseline-decoder it also judges a distilled VGG-19 with the decoder that reconstructs
(Collaborative Distillation, CVPR 2020), with plain AdaIN at relu4_1.
"""

import argparse
import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from debias.pipelines import image_loader
from debias.style_transfer import Images, Stylizer, adain
from debias.style_transfer.adain import EPSILON, mean_std
from debias.style_transfer.quality import closure, edge_correlation
from debias.style_transfer.weights import read_state

TAPS = (1, 4, 7)  # positions in squeezenet1_1().features: the first ReLU, the 2nd and the 4th fire module
CHUNK = 20  # photos in work at a time

Restyle = Callable[[Images, Images, float], Images]  # content, style, alpha


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="image folder")
    parser.add_argument("squeezenet", type=Path, help="weights file of torchvision's squeezenet1_1().features")
    parser.add_argument("--stylizer", default="compact", help="a name, a file or a folder, as Stylizer.load takes it")
    parser.add_argument("--baseline-encoder", type=Path, help="weights file of the distilled VGG-19")
    parser.add_argument("--baseline-decoder", type=Path, help="weights file of its reconstruction decoder")
    parser.add_argument("--limit", type=int, default=0, help="judge this many of the photos, evenly spread")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    arguments = parser.parse_args()
    if bool(arguments.baseline_encoder) != bool(arguments.baseline_decoder):
        parser.error("--baseline-encoder and --baseline-decoder go together")
    photos = read_photos(arguments.photos, arguments.size, arguments.limit)
    judge = SqueezeNet(arguments.squeezenet)
    print(f"torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads")
    print(f"n {len(photos)} photos of {arguments.size} x {arguments.size}\n")
    print(f"{'':22} {'alpha':>5} {'closure':>8} {'edges':>6}")
    if arguments.baseline_encoder:
        baseline = DistilledAdaIN(read_state(arguments.baseline_encoder), read_state(arguments.baseline_decoder))
        print_figures("distilled VGG-19", baseline, photos, judge)
    stylizer = Stylizer.load(arguments.stylizer)
    print_figures(stylizer.name, stylizer, photos, judge)


def read_photos(folder: str, size: int, limit: int) -> Images:
    """The shorter side resized to `size`, the centre cut out."""
    loader = image_loader(folder, size=size, batch_size=CHUNK, train=False, engine="torchvision", crop=1.0, flat=True)
    photos = torch.cat([batch.images for batch in loader])
    return photos[:: max(1, len(photos) // limit)][:limit] if limit else photos


@torch.no_grad()
def print_figures(name: str, restyle: Restyle, photos: Images, judge: "SqueezeNet") -> None:
    styles = photos.roll(-1, 0)
    for alpha in (1.0, 0.5, 0.0):
        pairs = zip(torch.split(photos, CHUNK), torch.split(styles, CHUNK), strict=True)
        output = torch.cat([restyle(content, style, alpha) for content, style in pairs])
        share, edges = closure(output, photos, styles, judge), edge_correlation(output, photos)
        print(f"{name:22} {alpha:5.1f} {share:8.3f} {edges:6.3f}", flush=True)


class SqueezeNet:
    """Images to feature maps of two positions that have the mean and standard deviation of the whole maps.

    `closure` looks at nothing else, and wants every photo in one batch, whose maps would not fit into memory.
    """

    def __init__(self, path: Path) -> None:
        self.layers = squeezenet1_1(weights=None).features.eval()
        self.layers.load_state_dict(read_state(path))
        self.mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        self.std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]

    def __call__(self, images: Images) -> list[Tensor]:
        """Three levels (B, C, 1, 2)."""
        chunks = [self._levels(chunk) for chunk in torch.split(images, CHUNK)]
        return [torch.cat(level) for level in zip(*chunks, strict=True)]

    def _levels(self, images: Images) -> list[Tensor]:
        features, found = (images - self.mean) / self.std, []
        for position, layer in enumerate(self.layers[: TAPS[-1] + 1]):
            features = layer(features)
            if position in TAPS:
                mean, std = mean_std(features)
                half = ((std.square() - EPSILON).clamp_min(0) / 2).sqrt()
                found.append(torch.stack([mean - half, mean + half], 2)[:, :, None])  # (B, C, 1, 2)
        return found


class DistilledAdaIN(nn.Module):
    """The distilled VGG-19 to relu4_1, AdaIN there, and the decoder that was fitted to reconstruct."""

    ENCODER = (*("11", "12", "pool", "21", "22", "pool"), *("31", "32", "33", "34", "pool", "41"))
    DECODER = (*("41", "up", "34", "33", "32", "31", "up"), *("22", "21", "up", "12"))

    def __init__(self, encoder: dict[str, Tensor], decoder: dict[str, Tensor]) -> None:
        super().__init__()
        self.encoder_state, self.decoder_state = encoder, decoder

    def forward(self, content: Images, style: Images, alpha: float) -> Images:
        """Clamped, as every stylizer's images are."""
        features = adain(self.encode(content), self.encode(style), alpha=alpha)
        for name in self.DECODER:
            if name == "up":
                features = F.interpolate(features, scale_factor=2)
            else:
                features = convolve(features, self.decoder_state, f"conv{name}").relu()
        return convolve(features, self.decoder_state, "conv11").clamp(0, 1)

    def encode(self, images: Images) -> Tensor:
        """relu4_1."""
        features = F.conv2d(images, self.encoder_state["conv0.weight"], self.encoder_state["conv0.bias"])
        for name in self.ENCODER:
            if name == "pool":
                features = F.max_pool2d(features, 2)
            else:
                features = convolve(features, self.encoder_state, f"conv{name}").relu()
        return features


def convolve(features: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    padded = F.pad(features, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, state[f"{name}.weight"], state[f"{name}.bias"])


if __name__ == "__main__":
    main()
