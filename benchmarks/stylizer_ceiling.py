"""How far pixels themselves can go towards a style by a given judge, read by another one:

    python benchmarks/stylizer_ceiling.py PHOTOS SQUEEZENET DISTILLED_VGG19

No network stands between: starting from what `compact` makes at alpha 1, the pixels of some photos are optimised
against the judges that `debias fit-stylizer` uses. Closure and edges are read by SqueezeNet, as in stylizer_quality.py.
What even pixels do not reach, no network that is fitted by these judges will.
"""

import argparse
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from stylizer_quality import SqueezeNet, read_photos
from torch import Tensor, nn

from debias.style_transfer import Images, Stylizer
from debias.style_transfer.adain import mean_std
from debias.style_transfer.fit import FILTERS, spread, style_loss
from debias.style_transfer.loss_network import LossNetwork
from debias.style_transfer.quality import closure, edge_correlation
from debias.style_transfer.random_filters import draw_filters, filter_responses

Judge = Callable[[Images], Sequence[Tensor]]
JudgeAt = Callable[[int], Judge]  # the judge of a step


def every_relu(network: LossNetwork, images: Images) -> list[Tensor]:
    """Features after all ReLUs, where `fit-stylizer` looks at the first of each scale."""
    found = []
    for layer in network.layers:
        images = layer(images)
        if isinstance(layer, nn.ReLU):
            found.append(images)
    return found


def optimised(start: Images, styles: Images, judges: Sequence[JudgeAt], steps: int, lr: float) -> Images:
    """`start` after `steps` of Adam on its pixels, against the styles' statistics by every judge."""
    pixels = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr)
    for step in range(steps):
        loss = torch.zeros(())
        for judge in judges:
            features = judge(step)
            with torch.no_grad():
                target = [mean_std(level) for level in features(styles)]
            made = [mean_std(level) for level in features(pixels.clamp(0, 1))]
            loss = loss + style_loss(made, target, spread(target))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return pixels.detach().clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="image folder")
    parser.add_argument("squeezenet", type=Path, help="weights file of torchvision's squeezenet1_1().features")
    parser.add_argument("loss_network", type=Path, help="weights file of the distilled VGG-19")
    parser.add_argument("--limit", type=int, default=30, help="this many of the photos, evenly spread")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--lr", type=float, default=0.02)
    arguments = parser.parse_args()
    photos = read_photos(arguments.photos, 224, arguments.limit)
    styles, judge = photos.roll(-1, 0), SqueezeNet(arguments.squeezenet)
    network = LossNetwork.load(arguments.loss_network)
    start = Stylizer.load()(photos, styles, 1.0)
    print(
        f"torch {torch.__version__}, {platform.machine()}; n {len(photos)}, {arguments.steps} steps of {arguments.lr}\n"
    )
    print(f"{'':40} closure  edges")

    @torch.no_grad()
    def say(name: str, images: Images) -> None:
        share, edges = closure(images, photos, styles, judge), edge_correlation(images, photos)
        print(f"{name:40} {share:7.3f} {edges:6.3f}", flush=True)

    def filters(step: int) -> Judge:
        return partial(filter_responses, filters=draw_filters(FILTERS, torch.Generator().manual_seed(step)))

    say("compact, where the pixels start", start)
    sets: dict[str, list[JudgeAt]] = {
        "random filters": [filters],
        "loss network, four layers": [lambda _: network],
        "loss network, every layer": [lambda _: partial(every_relu, network)],
        "every layer and random filters": [lambda _: partial(every_relu, network), filters],
    }
    for name, judges in sets.items():
        say(name, optimised(start, styles, judges, arguments.steps, arguments.lr))


if __name__ == "__main__":
    main()
