"""The recipe by which every objective is trained on `shapes`, in `debias demo` and in benchmarks/shapes_objectives.py.

Network and optimizer were chosen with `vanilla`; an objective adds no more than its own settings, which were chosen on
seeds that no comparison may use.
"""

from typing import Any

from debias.pipelines import shapes
from debias.train.loop import LoopSettings
from debias.train.models import ModelSettings
from debias.train.objectives import settings_of
from debias.train.optimization import Optimization
from debias.train.training import StepSettings

from .objective_settings import ObjectiveSettings
from .training_settings import DataSettings, TrainSettings

__all__ = ["ATTACKED", "CHOSEN_ON", "MODEL", "STYLIZED", "shapes_settings"]

MODEL = "debias.train.small_resnet:small_resnet"  # torchvision's stem would blur the textures away
# The set offers a texture for every image, so the conflicts are as strong as they go, and count four times: with the
# paper's weight of 1 the branch `stylized` learns shapes, and `main` keeps to its textures.
STYLIZED = {"alpha": 1.0, "stylized_weight": 4.0}
ATTACKED = {"attack_eps": "4/255", "attack_steps": 2, "attack_step_size": "2/255"}
CHOSEN_ON = (3, 10, 12)  # the seeds that these were chosen on


def shapes_settings(objective: str, seed: int, *, epochs: int) -> TrainSettings:
    """A training of `objective` on the set of this seed."""
    known = settings_of(objective)
    own: dict[str, Any] = {name: value for name, value in {**STYLIZED, **ATTACKED}.items() if name in known}
    own |= {"attack_steps": 1} if "fast-advprop" in objective else {}
    return TrainSettings(
        data=DataSettings(str(shapes.folder(seed)), batch_size=64, min_crop=0.6),
        objective=ObjectiveSettings(objective, **own),
        model=ModelSettings(MODEL),
        optimization=Optimization(lr=0.1, nesterov=True, weight_decay=5e-4, warmup_epochs=epochs / 8),
        step=StepSettings(seed=seed),
        loop=LoopSettings(epochs=epochs),
    )
