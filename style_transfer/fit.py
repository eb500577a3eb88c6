"""Fitting a stylizer: photos in the styles of other photos and of textures, judged by a frozen network.

Huang and Belongie, ICCV 2017, Eqs. 11 to 13: the output's deepest features should be the AdaIN target (content loss),
its channel statistics at four depths the style's (style loss). Four changes, each for a reason:

* every statistic is divided by its spread over the styles, so that no layer needs a weight of its own;
* random filters judge the style beside the frozen network, since a small network is easily satisfied by a grid that no
  other one would take for the style;
* part of each batch is also decoded at alpha 0 and compared with the photo itself, since a blend with alpha below 1 is
  only as good as the reconstruction it leans on;
* most styles are photos of the same batch, because that is how cue-conflict training uses the network.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .adain import Statistics, mean_std, restyle_features
from .images import Images
from .loss_network import LossNetwork
from .network import Network
from .precision import has_bf16
from .quality import closure, edge_correlation
from .random_filters import draw_filters, filter_responses

JITTER = 8  # pixels
FILTERS = 32  # random filters at each scale
FLOOR = 1e-3  # a channel that hardly varies over the styles must not outweigh the others


@dataclass(frozen=True)
class FitSettings:
    """How a stylizer is fitted."""

    steps: Annotated[int, "optimizer steps"] = 1_300
    size: Annotated[int, "pixels a side of the crops"] = 128
    batch_size: Annotated[int, "photos a step"] = 16
    style_images: Annotated[int, "photos of a step that take their style from the style folder, not from the batch"] = 4
    lr: Annotated[float, "Adam's learning rate at the start of its cosine"] = 2e-4
    style_weight: Annotated[float, "style loss against content loss: more is closer to the style, less edges"] = 10.0
    filter_weight: Annotated[float, "style loss by random filters against the frozen network's"] = 1.0
    identity_weight: Annotated[float, "pixel loss at alpha 0"] = 300.0
    identity_images: Annotated[int, "photos of a step also decoded at alpha 0"] = 4
    seed: Annotated[int, "of the initial weights, crops and order"] = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError("--batch-size must be 2 or more: photos take their styles from one another")
        for name in ("style_images", "identity_images"):
            if not 0 <= getattr(self, name) <= self.batch_size:
                raise ValueError(f"--{name.replace('_', '-')} must lie between 0 and --batch-size")
        if self.steps < 1:
            raise ValueError(f"--steps must be 1 or more, got {self.steps}")
        if self.size < 32 or self.size % 16:
            raise ValueError(f"--size must be a multiple of 16 and 32 or more, got {self.size}")
        for name in ("lr", "style_weight", "filter_weight", "identity_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} must be 0 or more, got {getattr(self, name)}")


class Fit:
    """One fit: a network, its optimizer and the step reached, all of it in `state_dict`.

    `train` is the prefix of the parameters that are fitted: "" for all of `compact`, "decoder" for `vgg19`.
    """

    def __init__(self, network: Network, loss_network: LossNetwork, settings: FitSettings, *, train: str = "") -> None:
        self.network, self.loss_network, self.settings = network, loss_network, settings
        self.step = 0
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith(train))
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, settings.lr)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, settings.steps, settings.lr / 100)
        self.spread: list[Statistics] = []  # of the styles' statistics, one for each depth of the loss network

    def state_dict(self) -> dict[str, Any]:
        """Plain types and tensors, all that a later process needs to go on bit for bit."""
        return {
            "settings": asdict(self.settings),
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "spread": [tuple(level) for level in self.spread],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; raises ValueError where it was made with other settings."""
        ours = asdict(self.settings)
        other = [f"{key} {value}" for key, value in state["settings"].items() if value != ours.get(key)]
        if other:
            raise ValueError(f"the checkpoint was made with {', '.join(other)}; give the same or another --out")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.spread = [Statistics(*level) for level in state["spread"]]
        self.step = state["step"]

    def advance(self, photos: Images, textures: Images) -> dict[str, Tensor]:
        """One optimizer step on photos (B, 3, H, W) and textures (T, 3, H, W), T <= B; the losses, on the device."""
        batch = Pairing.of(photos, textures)
        with torch.autocast(photos.device.type, torch.bfloat16, enabled=has_bf16(photos.device)):
            losses = self._losses(batch)
        style = losses["style"] + self.settings.filter_weight * losses["filters"]
        total = losses["content"] + self.settings.style_weight * style
        total = total + self.settings.identity_weight * losses["identity"]
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
        if not bool(torch.isfinite(norm)):
            raise ValueError(f"the gradient of step {self.step + 1} is not finite; lower --lr or change --loss-network")
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def quality(self, photos: Images, textures: Images) -> dict[str, float]:
        """Closure and edge correlation at alpha 1 on a batch, by the loss network's own features."""
        batch = Pairing.of(photos, textures)
        with torch.autocast(photos.device.type, torch.bfloat16, enabled=has_bf16(photos.device)):
            output = self._stylised(batch, keep=0).float().clamp(0, 1)
            styles = batch.images[batch.partners]
            share = closure(output, photos, styles, self.loss_network)
        return {"closure": share, "edges": edge_correlation(output, photos)}

    def _losses(self, batch: "Pairing") -> dict[str, Tensor]:
        keep = self.settings.identity_images
        outputs = self._stylised(batch, keep)
        reconstructed = outputs[batch.size :]
        # A generator of its own for every step: a run that goes on draws what the unbroken one would.
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)
        window = draw_window(self.settings.size, generator)
        images, stylised = batch.images[window], outputs[: batch.size][window]
        with torch.no_grad():
            given = self.loss_network(images)
            given_statistics = [mean_std(level) for level in given]
            styles = [level.select(batch.partners) for level in given_statistics]
            self._track_spread(styles)
            contents = given_statistics[-1].select(slice(batch.size))
            target = restyle_features(given[-1][: batch.size], contents, styles[-1], alpha=1.0)
        made = self.loss_network(stylised)
        return {
            "content": content_loss(made[-1], target),
            "style": style_loss([mean_std(level) for level in made], styles, self.spread),
            "filters": filter_loss(stylised, images, batch.partners, draw_filters(FILTERS, generator)),
            "identity": F.mse_loss(reconstructed.float(), batch.images[:keep]) if keep else stylised.new_zeros(()),
        }

    def _stylised(self, batch: "Pairing", keep: int) -> Images:
        """Every photo in its partner's style at alpha 1, then the first `keep` of them at alpha 0."""
        photos = torch.arange(batch.size, device=batch.images.device)
        rows = torch.cat([photos, photos[:keep]])
        partners = torch.cat([batch.partners, photos[:keep]])  # at alpha 0 any partner will do
        alpha = torch.ones(len(rows), device=rows.device)
        alpha[batch.size :] = 0
        moved = []
        for level in self.network.encode(batch.images):
            own = mean_std(level)
            moved.append(restyle_features(level[rows], own.select(rows), own.select(partners), alpha=alpha))
        return self.network.decode(moved)

    def _track_spread(self, styles: list[Statistics]) -> None:
        now = spread(styles)
        before = self.spread or now
        self.spread = [
            Statistics(torch.lerp(old.mean, new.mean, 0.01), torch.lerp(old.std, new.std, 0.01))
            for old, new in zip(before, now, strict=True)
        ]


@dataclass(frozen=True)
class Pairing:
    """Photos and textures in one tensor, so that each is encoded once, and for each photo the row of its style."""

    images: Images  # (B + T, 3, H, W), photos first
    partners: Tensor  # (B,) int64
    size: int  # B

    @classmethod
    def of(cls, photos: Images, textures: Images) -> "Pairing":
        """The first T photos take the textures, the others the photo before them; loaders have shuffled both."""
        b, t = len(photos), len(textures)
        partners = torch.arange(b) - 1
        partners[:t] = b + torch.arange(t)
        partners[partners < 0] = b - 1
        images = torch.cat([photos, textures]).contiguous(memory_format=torch.channels_last)
        return cls(images, partners.to(photos.device), b)


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Eq. 12: mean squared distance of the deepest features (B, C, h, w) to the AdaIN target, over its variance."""
    target = target.float()
    return F.mse_loss(features.float(), target) / target.var()


def draw_window(size: int, generator: torch.Generator) -> tuple[slice, slice, slice, slice]:
    """A random window that leaves `JITTER` pixels of rows and of columns out.

    The judges pool by 2, 4 and 8. Where their lattice falls always the same, a decoder that writes blocks of 4 learns a
    grid that pleases them and nobody else.
    """
    top, left = torch.randint(JITTER + 1, (2,), generator=generator).tolist()
    side = size - JITTER
    return slice(None), slice(None), slice(top, top + side), slice(left, left + side)


def filter_loss(stylised: Images, images: Images, partners: Tensor, filters: Tensor) -> Tensor:
    """The style loss of stylised photos (B) by random filters, against their partners among `images` (B + T)."""
    filters = filters.to(stylised.device)
    with torch.no_grad():
        given = [mean_std(level).select(partners) for level in filter_responses(images, filters)]
    made = [mean_std(level) for level in filter_responses(stylised, filters)]
    return style_loss(made, given, spread(given))


def spread(styles: list[Statistics]) -> list[Statistics]:
    """The standard deviation of each statistic over the batch, (C,)."""
    return [Statistics(level.mean.std(0), level.std.std(0)) for level in styles]


def style_loss(made: list[Statistics], styles: list[Statistics], spread: list[Statistics]) -> Tensor:
    """Eq. 13 over the depths: squared distance of means and of standard deviations, each in units of its spread.

    0 where the statistics are the style's; about 4 for two unrelated images.
    """
    depths = [
        (((ours.mean - theirs.mean) / (unit.mean + FLOOR)).square().mean())
        + (((ours.std - theirs.std) / (unit.std + FLOOR)).square().mean())
        for ours, theirs, unit in zip(made, styles, spread, strict=True)
    ]
    return torch.stack(depths).mean()
