"""The published recipes by name: what each set, the score it is published with, and where both are to be read.

A preset gives flags of `debias train` other defaults; a flag on the command line goes before it. Scores are ImageNet
top-1, or COCO's AP on test-dev, through the main BatchNorm as their authors report them, for the data and the batch on
their machines. None of them was trained again here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from debias.pipelines.attacks import ADVPROP_PRESETS
from debias.train.objectives import settings_of

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """A recipe: flags by field name, the published top-1 or AP in percent (None where none is at hand), its source."""

    flags: Mapping[str, Any]
    top1: float | None
    source: str
    ap: float | None = None

    def flags_for(self, objective: str) -> Mapping[str, Any]:
        """The flags but for what `objective` does not have, so that `--objective vanilla` is a recipe's baseline."""
        useless = settings_of(self.flags["objective"]) - settings_of(objective)
        return {name: value for name, value in self.flags.items() if name not in useless}


_RESNET = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "norm_decay": True,
    "schedule": "step",
    "decay": 0.1,
    "variant": "authors-code",
}
_LI = "LiYingwei/ShapeTextureDebiasedTraining: README (score), TRAINING.md and imagenet.py (recipe)"
_DEBIASED = {**_RESNET, "objective": "debiased", "size_schedule": "authors", "warmup_epochs": 5}
_XIE_R50 = "tingxueronghua/pytorch-classification-advprop: README (score, best epoch), run.sh (recipe)"
_MEI = "meijieru/fast_advprop: scripts/run_fastadvprop.sh (recipe); no score of this recipe is at hand"
_TAN = "tensorflow/tpu, models/official/efficientnet: README (score), main.py (recipe); attack: see ADVPROP_PRESETS"
# Square averages from 1 and eps within the root are TensorFlow's alone: see `Optimization`.
_EFFICIENTNET = {
    "objective": "advprop",
    "loss": "sum",
    "epochs": 350,
    "batch_size": 2048,
    "lr": 0.128,
    "optimizer": "rmsprop",
    "momentum": 0.9,
    "rmsprop_alpha": 0.9,
    "weight_decay": 1e-5,
    "norm_decay": False,
    "schedule": "exponential",
    "decay": 0.97,
    "decay_epochs": 2.4,
    "warmup_epochs": 5,
    "ema": 0.9999,
    "label_smoothing": 0.1,
    "policy": "autoaugment",
    "drop_path": 0.2,
}
_DROPOUT = (0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5)  # B0 to B8
_ADVPROP_TOP1 = (77.6, 79.6, 80.5, 81.9, 83.3, 84.3, 84.8, 85.2, 85.5)


def _efficientnet(number: int) -> Preset:
    attack = ADVPROP_PRESETS[f"efficientnet_b{number}"].attack
    flags = {
        **_EFFICIENTNET,
        # timm's networks of this tag have the recipe's input size, mean and std of 0.5, padding and BatchNorm eps.
        "model": f"timm:tf_efficientnet_b{number}.ap_in1k",
        "dropout": _DROPOUT[number],
        "attack_eps": attack.eps,
        "attack_steps": attack.steps,
        "attack_step_size": attack.step_size,
    }
    return Preset(flags, _ADVPROP_TOP1[number], _TAN)


def _with(flags: Mapping[str, Any], **changes: Any) -> Mapping[str, Any]:
    return {**flags, **changes}


_CHEN = (
    "google/automl, efficientdet: Det-AdvProp.md (AP, inputs), hparams_config.py (recipe); "
    "radius of the attack: none is published, ours is the smallest of AdvProp's"
)
# Jitter resizes by 0.1 to 2 there; a window of a fourth of the area is the 2, and nothing here makes objects smaller.
_EFFICIENTDET = {
    "task": "detection",
    "objective": "det-advprop",
    "loss": "sum",
    "epochs": 300,
    "batch_size": 64,
    "lr": 0.08,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 4e-5,
    "norm_decay": False,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "warmup_from": 0.1,
    "clip": 10.0,
    "ema": 0.9998,
    "policy": "autoaugment",
    "min_crop": 0.25,
    "attack_eps": "1/255",
}
_DET_ADVPROP_AP = (35.3, 40.9, 44.3, 48.0, 50.4, 52.5)


def _efficientdet(number: int) -> Preset:
    # effdet's networks of this name have the size, and the mean and std of 0.5, of the weights with Det-AdvProp.
    model = f"effdet:tf_efficientdet_d{number}_ap"
    return Preset({**_EFFICIENTDET, "model": model}, None, _CHEN, _DET_ADVPROP_AP[number])


_LONG = {"model": "timm:resnext101_32x4d", "batch_size": 256, "lr": 0.1}

PRESETS: Mapping[str, Preset] = {
    "debiased-resnet50": Preset(
        _with(_DEBIASED, model="resnet50", epochs=100, batch_size=512, lr=0.2, milestones="30,60,90"),
        76.9,
        _LI,
    ),
    "debiased-resnet101": Preset(
        _with(_DEBIASED, model="resnet101", epochs=100, batch_size=256, lr=0.1, milestones="30,60,90"), 78.9, _LI
    ),
    "debiased-resnet152": Preset(
        _with(_DEBIASED, model="resnet152", epochs=100, batch_size=256, lr=0.1, milestones="30,60,90"), 79.8, _LI
    ),
    "debiased-mixup-resnext101": Preset(
        _with(_DEBIASED, **_LONG, epochs=180, milestones="60,120,160", mixup=0.4, smallest_size=200), 80.5, _LI
    ),
    "debiased-cutmix-resnext101": Preset(
        _with(_DEBIASED, **_LONG, epochs=210, milestones="75,150,180", cutmix=1.0, size_schedule="full"), 81.2, _LI
    ),
    "advprop-resnet50": Preset(
        _with(
            _RESNET,
            objective="advprop",
            model="resnet50",
            epochs=105,
            batch_size=256,
            lr=0.1,
            milestones="30,60,90,100",
            attack_eps="1/255",
            attack_steps=1,
            attack_step_size="1/255",
        ),
        77.42,
        _XIE_R50,
    ),
    "fast-advprop-resnet50": Preset(
        _with(
            _RESNET,
            objective="fast-advprop",
            model="resnet50",
            epochs=87,
            batch_size=320,  # 256 clean images and 64 to attack: the share of 0.2
            lr=0.1,
            milestones="25,50,75,83",
        ),
        None,
        _MEI,
    ),
    **{f"advprop-efficientnet_b{number}": _efficientnet(number) for number in range(9)},
    **{f"det-advprop-efficientdet_d{number}": _efficientdet(number) for number in range(6)},
}
