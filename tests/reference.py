"""The methods once more, from the papers: plain loops over images, channels and positions, in double precision.

Slow on purpose, and apart from the code they are compared with: nothing but torch is imported here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, ICCV 2017


def channel_statistics(plane: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of one channel (H, W); the variance is unbiased, plus 1e-5 (authors' code)."""
    values = [float(value) for value in plane.flatten()]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
    return mean, math.sqrt(variance + 1e-5)


def adain(content: Tensor, style: Tensor, alpha: float) -> Tensor:
    """Eq. 8, channel by channel, and the blend with the content of Eq. 14."""
    out = torch.empty(content.shape, dtype=torch.float64)
    for image in range(content.shape[0]):
        for channel in range(content.shape[1]):
            content_mean, content_std = channel_statistics(content[image, channel])
            style_mean, style_std = channel_statistics(style[image, channel])
            plane = content[image, channel].double()
            transferred = style_std * ((plane - content_mean) / content_std) + style_mean
            out[image, channel] = alpha * transferred + (1 - alpha) * plane
    return out


def content_loss(features: Tensor, target: Tensor) -> float:
    """Eq. 12 as a mean of squares, in units of the target's variance over all of the batch."""
    ours = [float(value) for value in features.flatten()]
    theirs = [float(value) for value in target.flatten()]
    centre = sum(theirs) / len(theirs)
    variance = sum((value - centre) ** 2 for value in theirs) / (len(theirs) - 1)
    return sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)) / len(ours) / variance


def style_loss(made: list[Tensor], styles: list[Tensor], floor: float) -> float:
    """Eq. 13 over feature maps (B, C, h, w), each statistic in units of its spread over the styles plus `floor`."""
    depths = []
    for ours, theirs in zip(made, styles, strict=True):
        total = 0.0
        for channel in range(ours.shape[1]):
            pairs = [
                (channel_statistics(a[channel]), channel_statistics(b[channel]))
                for a, b in zip(ours, theirs, strict=True)
            ]
            for kind in (0, 1):  # means, then standard deviations
                unit = _spread([pair[1][kind] for pair in pairs]) + floor
                squares = [((pair[0][kind] - pair[1][kind]) / unit) ** 2 for pair in pairs]
                total += sum(squares) / len(squares)
        depths.append(total / ours.shape[1])
    return sum(depths) / len(depths)


# The two figures for a stylised image


def closure(output: list[Tensor], content: list[Tensor], style: list[Tensor]) -> float:
    """1 - d(output, style) / d(content, style); d over channel means and deviations, each in units of its spread."""

    def rows(maps: list[Tensor]) -> list[list[float]]:
        return [
            [value for level in maps for plane in level[image] for value in channel_statistics(plane)]
            for image in range(len(maps[0]))
        ]

    target = rows(style)
    spreads = [_spread(list(column)) for column in zip(*target, strict=True)]

    def distance(maps: list[Tensor]) -> float:
        each = [
            math.sqrt(sum(((a - b) / s) ** 2 for a, b, s in zip(ours, theirs, spreads, strict=True)) / len(ours))
            for ours, theirs in zip(rows(maps), target, strict=True)
        ]
        return sum(each) / len(each)

    return 1 - distance(output) / distance(content)


def sobel(image: Tensor) -> Tensor:
    """Gradient magnitude (H - 2, W - 2) of the mean over the colours of one image (3, H, W)."""
    grey = image.double().sum(0) / 3
    height, width = grey.shape
    out = torch.empty(height - 2, width - 2, dtype=torch.float64)
    for y in range(height - 2):
        for x in range(width - 2):
            across = sum(k * float(grey[y + i, x] - grey[y + i, x + 2]) for i, k in enumerate((1, 2, 1)))
            down = sum(k * float(grey[y, x + i] - grey[y + 2, x + i]) for i, k in enumerate((1, 2, 1)))
            out[y, x] = math.hypot(across, down)
    return out


def convolution(image: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """One filter (C, 3, 3) over one image (C, H, W), without padding."""
    rows = range(0, image.shape[1] - 2, stride)
    columns = range(0, image.shape[2] - 2, stride)
    windows = [[float((image[:, y : y + 3, x : x + 3] * kernel).sum()) for x in columns] for y in rows]
    return torch.tensor(windows, dtype=torch.float64)


# Li et al., Shape-Texture Debiased Neural Network Training, ICLR 2021


def cue_conflict_labels(labels: list[int], partners: list[int], classes: int, shape_weight: float) -> Tensor:
    """Eq. 1: `shape_weight` of the own class and the rest of the class of the image that lent its style."""
    out = torch.zeros(len(labels), classes, dtype=torch.float64)
    for image, partner in enumerate(partners):
        out[image, labels[image]] += shape_weight
        out[image, labels[partner]] += 1 - shape_weight
    return out


# One training step of each objective. A network is convolutions and a head that all images share, and BatchNorms that
# exist once for each branch: plain nn.BatchNorm2d objects, which nothing routes.


@dataclass
class Network:
    """Convolution, BatchNorm, ReLU, twice or more; the mean over positions; a linear head. In double precision."""

    convolutions: list[nn.Conv2d]
    norms: dict[str, list[nn.BatchNorm2d]]
    head: nn.Linear


def logits(network: Network, images: list[Tensor], branch: str, training: bool) -> list[Tensor]:
    """Logits (K,) of each image (3, H, W); the images are one batch to BatchNorm and to nothing else."""
    maps = images
    for convolution, norm in zip(network.convolutions, network.norms[branch], strict=True):
        norm.train(training)
        maps = [convolution(image[None])[0] for image in maps]
        maps = [image.clamp(min=0) for image in norm(torch.stack(maps))]
    scores: list[Tensor] = [network.head(image.mean((1, 2))) for image in maps]
    return scores


def cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    """-sum_k t_k log p_k of one image, for scores and target (K,)."""
    normaliser = _total([score.exp() for score in scores])
    return -_total([weight * (score - torch.log(normaliser)) for weight, score in zip(target, scores, strict=True)])


def losses(network: Network, images: list[Tensor], targets: list[Tensor], branch: str = "main") -> list[Tensor]:
    """Cross-entropy of each image, read in training mode by `branch`."""
    scores = logits(network, images, branch, training=True)
    return [cross_entropy(own, target) for own, target in zip(scores, targets, strict=True)]


def join(views: list[tuple[float, list[Tensor]]], scale: str) -> Tensor:
    """The loss of views with weights: their weighted mean, or the AdvProp paper's weighted sum."""
    total = _total([weight * _total(own) / len(own) for weight, own in views])
    return total / sum(weight for weight, _ in views) if scale == "mean" else total


# Madry et al., ICLR 2018, section 2.1; Xie et al., AdvProp, CVPR 2020, Algorithm 1


def starts(
    images: list[Tensor], eps: float, probability: float, coins: int, generator: torch.Generator
) -> list[Tensor]:
    """Each image plus uniform noise with `probability`, else itself; a coin for each image, or one for all."""
    shape = (len(images), *images[0].shape)
    noise = torch.rand(shape, generator=generator).double() * 2 * eps - eps
    heads = [float(coin) < probability for coin in torch.rand(coins, generator=generator)]
    return [image + noise[i] if heads[i % coins] else image for i, image in enumerate(images)]


def aims(targets: list[Tensor], lowest: int, generator: torch.Generator) -> list[Tensor]:
    """For each image the target (K,) of a random class, `lowest` or more beyond its own: 0 may hit the own class."""
    drawn = torch.rand(len(targets), generator=generator)
    out = []
    for target, draw in zip(targets, drawn, strict=True):
        classes = len(target)
        offset = lowest + int(float(draw) * (classes - lowest))
        aim = torch.zeros_like(target)
        aim[(int(target.argmax()) + offset) % classes] = 1
        out.append(aim)
    return out


def step_up(point: Tensor, gradient: Tensor, image: Tensor, eps: float, step_size: float) -> Tensor:
    """One step along the gradient's sign, then back into the ball around the image and into [0, 1]."""
    moved = point.detach() + step_size * gradient.sign()
    return torch.minimum(torch.maximum(moved, (image - eps).clamp(min=0)), (image + eps).clamp(max=1))


def attack(
    network: Network,
    images: list[Tensor],
    targets: list[Tensor],
    begin: list[Tensor],
    aim: list[Tensor] | None,
    branch: str,
    eps: float,
    steps: int,
    step_size: float,
) -> list[Tensor]:
    """Climb the loss of each image alone, or descend to its aim, through the running statistics of `branch`.

    The first gradient is taken where `begin` says, be that within [0, 1] or not.
    """
    out = []
    for i, image in enumerate(images):
        point = begin[i]
        for _ in range(steps):
            point = point.detach().requires_grad_()
            (scores,) = logits(network, [point], branch, training=False)
            loss = cross_entropy(scores, targets[i]) if aim is None else -cross_entropy(scores, aim[i])
            (gradient,) = torch.autograd.grad(loss, point)
            point = step_up(point, gradient, image, eps, step_size)
        out.append(point.detach())
    return out


# Chen et al., Robust and Accurate Object Detection via Adversarial Learning, CVPR 2021, Algorithm 1


def stronger_attacks(
    network: Network,
    images: list[Tensor],
    targets: list[Tensor],
    parts: tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]],
    eps: float,
) -> list[Tensor]:
    """Eq. 4 to 6: each image attacked on each of two losses, and of these the one with the larger sum of both.

    `parts` take an image's outputs and target; the attacks read the running statistics of `adversarial`.
    """
    made = []
    for image, target in zip(images, targets, strict=True):
        tried, sums = [], []
        for part in parts:
            point = image.detach().requires_grad_()
            (outputs,) = logits(network, [point], "adversarial", training=False)
            (gradient,) = torch.autograd.grad(part(outputs, target), point)
            tried.append(step_up(point, gradient, image, eps, eps).detach())
            (outputs,) = logits(network, [tried[-1]], "adversarial", training=False)
            sums.append(sum(float(both(outputs, target).detach()) for both in parts))
        made.append(tried[1] if sums[1] > sums[0] else tried[0])
    return made


# Li et al., ICLR 2021, section 3


def nearest(image: Tensor, side: int) -> Tensor:
    """A square image (3, H, H) at another side, each pixel from the nearest one above and to the left."""
    rows = [int(place * image.shape[1] / side) for place in range(side)]
    return torch.stack([torch.stack([image[:, y, x] for x in rows], 1) for y in rows], 1)


def cue_conflicts(
    images: list[Tensor],
    targets: list[Tensor],
    partners: list[int],
    stylize: Callable[[Tensor, Tensor], Tensor],
    shape_weight: float,
    clamp: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Each image in its partner's style and both labels, Eq. 1."""
    made = [stylize(image, images[partner]) for image, partner in zip(images, partners, strict=True)]
    both = [
        shape_weight * target + (1 - shape_weight) * targets[partner]
        for target, partner in zip(targets, partners, strict=True)
    ]
    return [image.clamp(0, 1) if clamp else image for image in made], both


# Mei et al., Fast AdvProp, ICLR 2022, section 3, as its public code counts; ours after it for stylised images


def fast_step(
    network: Network,
    clean: tuple[list[Tensor], list[Tensor]],
    attacked: tuple[list[Tensor], list[Tensor], list[Tensor]] | None,
    stylized: tuple[list[Tensor], list[Tensor]] | None,
    eps: float,
    step_size: float,
    noise_weight: float,
) -> Tensor:
    """Gradients of disjoint images into `.grad`, each parameter's averaged over the images that reached it.

    `attacked` are images, targets and the noise copies to begin from. Returns the loss: the sum over all images, noise
    and adversarial copies with their weights, by the number of images.
    """
    count = {
        parameter: 0.0
        for module in (*network.convolutions, network.head, *(n for norms in network.norms.values() for n in norms))
        for parameter in module.parameters()
    }
    total = torch.zeros((), dtype=torch.float64)

    def train_on(images: list[Tensor], targets: list[Tensor], branch: str, weight: float) -> None:
        nonlocal total
        loss = weight * _total(losses(network, images, targets, branch))
        loss.backward()
        total = total + loss.detach()
        for module in (*network.convolutions, network.head, *network.norms[branch]):
            for parameter in module.parameters():
                count[parameter] += weight * len(images)

    train_on(*clean, "main", 1.0)
    if attacked is not None:
        images, targets, begin = attacked
        noise = [point.detach().requires_grad_() for point in begin]
        train_on(noise, targets, "adversarial", noise_weight)
        made = []
        for point, image in zip(noise, images, strict=True):
            assert point.grad is not None
            made.append(step_up(point, point.grad, image, eps, step_size))
        train_on(made, targets, "adversarial", 1 - noise_weight)
    if stylized is not None:
        train_on(*stylized, "stylized", 1.0)
    for parameter, weight in count.items():
        if parameter.grad is not None:
            parameter.grad /= weight
    return total / sum(len(part[0]) for part in (clean, attacked, stylized) if part is not None)


# Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019


def mixup(images: Tensor, targets: Tensor, partners: list[int], ratio: float) -> tuple[Tensor, Tensor]:
    """Each image and target with its partner's, image by image."""
    mixed = [ratio * images[i] + (1 - ratio) * images[j] for i, j in enumerate(partners)]
    labels = [ratio * targets[i] + (1 - ratio) * targets[j] for i, j in enumerate(partners)]
    return torch.stack(mixed), torch.stack(labels)


def cutmix(
    images: Tensor, targets: Tensor, partners: list[int], box: tuple[int, int, int, int]
) -> tuple[Tensor, Tensor]:
    """Each image with the box pasted from its partner, pixel by pixel; the label counts the pixels."""
    top, left, bottom, right = box
    mixed, labels = images.clone(), targets.clone()
    for i, j in enumerate(partners):
        pasted = 0
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                if top <= y < bottom and left <= x < right:
                    mixed[i, :, y, x] = images[j, :, y, x]
                    pasted += 1
        share = pasted / (images.shape[2] * images.shape[3])
        labels[i] = (1 - share) * targets[i] + share * targets[j]
    return mixed, labels


# Lin et al., Microsoft COCO, ECCV 2014, and its evaluation server's rules, of one class

Box = list[float]  # x0, y0, x1, y1


def overlap(found: Box, truth: Box, region: bool) -> float:
    """Intersection over union; over the found box alone where the truth is an ignored region."""
    width = max(0.0, min(found[2], truth[2]) - max(found[0], truth[0]))
    height = max(0.0, min(found[3], truth[3]) - max(found[1], truth[1]))
    area = (found[2] - found[0]) * (found[3] - found[1])
    other = (truth[2] - truth[0]) * (truth[3] - truth[1])
    return width * height / (area if region else area + other - width * height)


def average_precision(
    truths: list[list[tuple[Box, bool]]], found: list[list[tuple[float, Box]]], threshold: float
) -> float:
    """Of images with their truths (box, ignored) and detections (score, box); NaN without a truth that counts."""
    wanted = sum(not ignored for image in truths for _, ignored in image)
    if not wanted:
        return math.nan
    verdicts: list[tuple[float, bool]] = []  # score and whether right, without those of ignored regions
    for image, shown in enumerate(truths):
        taken: set[int] = set()
        for score, box in sorted(found[image], key=lambda one: -one[0]):
            best, at = threshold, -1
            for index, (truth, ignored) in enumerate(shown):
                if not ignored and index not in taken and overlap(box, truth, False) >= best:
                    best, at = overlap(box, truth, False), index
            if at >= 0:
                taken.add(at)
                verdicts.append((score, True))
            elif not any(ignored and overlap(box, truth, True) >= threshold for truth, ignored in shown):
                verdicts.append((score, False))
    verdicts.sort(key=lambda one: -one[0])
    points: list[tuple[float, float]] = []  # recall, precision
    for count in range(1, len(verdicts) + 1):
        right = sum(verdict for _, verdict in verdicts[:count])
        points.append((right / wanted, right / count))
    at_recalls = [
        max([precision for recall, precision in points if recall >= step / 100 - 1e-12], default=0.0)
        for step in range(101)
    ]
    return sum(at_recalls) / 101


def _total(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()


def _spread(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


# Segmentation: what a pixel's target is. The rule is ours; Li et al., ICLR 2021, print none for VOC


def pixel_targets(
    labels: Tensor, partners: Tensor | None, *, classes: int, ignored: int, background: int | None, shape_weight: float
) -> list[list[list[list[float] | None]]]:
    """For each image, row and column the weights of the classes, None where the pixel is ignored.

    `labels` (B, H, W). Without partners each pixel has its own class alone.
    """
    made: list[list[list[list[float] | None]]] = []
    for image in range(len(labels)):
        counts = [0] * classes
        if partners is not None:
            for value in labels[int(partners[image])].flatten().tolist():
                if value not in (ignored, background):
                    counts[value] += 1
        area = sum(counts)
        own = shape_weight if area else 1.0
        rows: list[list[list[float] | None]] = []
        for row in labels[image].tolist():
            rows.append([])
            for value in row:
                if value == ignored:
                    rows[-1].append(None)
                    continue
                weights = [(1 - own) * count / area if area else 0.0 for count in counts]
                weights[value] += own
                rows[-1].append(weights)
        made.append(rows)
    return made


def segmentation_losses(logits: Tensor, targets: list[list[list[list[float] | None]]]) -> Tensor:
    """Soft cross-entropy of each image, (B,): the mean over its pixels that are not ignored; 0 where all are."""
    losses = []
    for image in range(len(logits)):
        terms = []
        for y, row in enumerate(targets[image]):
            for x, weights in enumerate(row):
                if weights is not None:
                    scores = logits[image, :, y, x]
                    normaliser = scores.exp().sum().log()
                    terms.append((torch.tensor(weights, dtype=logits.dtype) * (normaliser - scores)).sum())
        losses.append(torch.stack(terms).mean() if terms else logits[image].sum() * 0)
    return torch.stack(losses)


def pixel_logits(network: Network, images: list[Tensor], branch: str, training: bool) -> list[Tensor]:
    """Logits (K, H, W) of each image: `logits` with the head at every position in place of their mean."""
    maps = images
    for convolution, norm in zip(network.convolutions, network.norms[branch], strict=True):
        norm.train(training)
        maps = [convolution(image[None])[0] for image in maps]
        maps = [image.clamp(min=0) for image in norm(torch.stack(maps))]
    return [network.head(image.permute(1, 2, 0)).permute(2, 0, 1) for image in maps]


PixelWeights = list[list[list[list[float] | None]]]


def pixel_losses(network: Network, images: list[Tensor], targets: PixelWeights, branch: str) -> list[Tensor]:
    """The loss of each image, read in training mode by `branch`."""
    return list(segmentation_losses(torch.stack(pixel_logits(network, images, branch, training=True)), targets))


def pixel_attack(
    network: Network,
    images: list[Tensor],
    targets: PixelWeights,
    begin: list[Tensor],
    branch: str,
    eps: float,
    steps: int,
    step_size: float,
) -> list[Tensor]:
    """Climb the loss of all pixels of each image alone, through the running statistics of `branch`."""
    out = []
    for i, image in enumerate(images):
        point = begin[i]
        for _ in range(steps):
            point = point.detach().requires_grad_()
            scores = torch.stack(pixel_logits(network, [point], branch, training=False))
            (gradient,) = torch.autograd.grad(segmentation_losses(scores, targets[i : i + 1]).sum(), point)
            point = step_up(point, gradient, image, eps, step_size)
        out.append(point.detach())
    return out
