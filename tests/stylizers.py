"""A stylizer for tests that need none in particular: `compact`, not fitted, and far from the identity it starts as."""

import torch

from debias.style_transfer import Stylizer
from debias.style_transfer.compact import Compact
from debias.style_transfer.weights import save_fitted


def network(seed: int = 0) -> Compact:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Compact()
        for parameter in made.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape)
    return made


def untrained(seed: int = 0) -> Stylizer:
    made = network(seed).eval().requires_grad_(False)
    return Stylizer(made.bfloat16().to(memory_format=torch.channels_last), name="untrained")


def save_untrained(path: "object", seed: int = 0) -> None:
    save_fitted(path, "compact", network(seed), {})  # type: ignore[arg-type]
