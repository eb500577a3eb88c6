"""Loss gradients: in which pixels a small change would raise the loss most.

    g(x) = dL(f(x), y)/dx,    shown as    0.5 + clip(g, -3 s, 3 s) / (6 s),    s^2 = mean((g - mean(g))^2)

with L = -log p the cross-entropy. By the log-odds o = log(p / (1 - p)) it is softplus(-o), so that g = (p - 1) do/dx,
where nothing cancels however sure a network is.

Tsipras et al., Robustness May Be at Odds with Accuracy, ICLR 2019, section 3: the gradient of a network that was
trained against attacks follows the edges of the object, that of a plain one looks like noise. They clip at three
standard deviations and scale to [0, 1]; here s is the image's own, and grey, 0.5, is a gradient of zero.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from debias.pipelines.view import Labels, Logits
from debias.style_transfer import Images
from debias.style_transfer.images import check_images
from debias.train import branch_batchnorm

__all__ = ["gradient_picture", "log_odds", "loss_gradient", "probabilities"]

CLIP = 3.0  # standard deviations


def loss_gradient(model: nn.Module, images: Images, labels: Labels, branch: str) -> Tensor:
    """The gradient of each image's cross-entropy with its label, (B, 3, H, W) float64, read by `branch` in eval mode.

    `model` maps images (B, 3, H, W) float32 in [0, 1] to logits (B, K), its normalisation within, so the gradient is
    that of a pixel in [0, 1]; `labels` are (B,) int64. Float64 because the gradient of an image that is surely right
    is too small for float32 (beyond log-odds of 700 for float64 too); the network computes in its own dtype. Nothing
    of `model` changes: no `.grad`, buffer or training flag; nothing is drawn. Raises ValueError for an unknown branch,
    for images of another shape, for labels that are not one class for each image, and where the gradient is not finite.
    """
    check_images(images)
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be one for each of {len(images)} images, got {tuple(labels.shape)}")
    # As for an attack: neither mode of the caller may stand in the way, and a tensor made in one has no gradient.
    with torch.inference_mode(False), torch.enable_grad(), branch_batchnorm.reading(model, branch):
        read = images.detach().clone().requires_grad_()
        odds = log_odds(model(read), labels.detach().clone())
        (gradient,) = torch.autograd.grad(odds.sum(), read)  # images do not see each other in eval mode
    found: Tensor = -torch.sigmoid(-odds.detach()).view(-1, 1, 1, 1) * gradient.double()
    if not found.isfinite().all():
        raise ValueError(f"the loss gradient read by branch {branch} is not finite: the weights or the images are not")
    return found


def gradient_picture(gradients: Tensor) -> Images:
    """Gradients (B, 3, H, W) of any scale as pictures in [0, 1] float32: grey where zero, each channel its own colour.

    Each image is clipped at three standard deviations of its own gradient, so that pictures say nothing of how large
    gradients are. A gradient without any deviation shows its sign alone.
    """
    wide = gradients.detach().double()  # the square of a gradient of 1e-30 is zero in float32
    reach = CLIP * wide.std(dim=(1, 2, 3), correction=0, keepdim=True)  # (B, 1, 1, 1)
    shown = torch.where(reach > 0, wide / torch.where(reach > 0, reach, 1), wide.sign())
    return (0.5 + shown.clamp(-1, 1) / 2).float()


def probabilities(model: nn.Module, images: Images, branch: str) -> Tensor:
    """What `branch` says of images (B, 3, H, W) in eval mode: the probability of each class, (B, K) float64."""
    with torch.no_grad(), branch_batchnorm.reading(model, branch):
        said: Tensor = model(images).double().softmax(dim=1)
    return said


def log_odds(logits: Logits, labels: Labels) -> Tensor:
    """log(p / (1 - p)) of each image's class, (B,) float64: its logit less the logsumexp of all others.

    Raises ValueError for labels that are no class, and where there is one class alone.
    """
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError("a network of one class is sure of all images; odds need a second one")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels must lie in [0, {classes}), got {labels.tolist()}")
    wide, truth = logits.double(), F.one_hot(labels, classes).bool()
    odds: Tensor = wide[truth] - wide.masked_fill(truth, -torch.inf).logsumexp(dim=1)
    return odds
