"""What is drawn for a batch: partners, attack starts, mixing. One generator for each purpose.

A draw depends on (seed, epoch, step, replica, purpose) and on nothing else: not on what else is drawn in the step, on
what was drawn before, on a resume, nor on how many replicas a process plays.
"""

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BatchDraws:
    """The draws of one batch: `step` counts the batches of `epoch`, `replica` the slices of a batch over all processes.

    `dataclasses.replace(draws, replica=r)` are the draws of another slice.
    """

    seed: int
    epoch: int = 0
    step: int = 0
    replica: int = 0

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A new generator on `device` for one purpose, "advprop: attack" say; asked twice, it starts anew.

        Devices have streams of their own: large draws belong on the images' device, small ones on the CPU.
        """
        key = "\0".join(map(str, (self.seed, self.epoch, self.step, self.replica, purpose)))
        # A hash, since neighbouring seeds may begin alike. (The CPU's generator uses 32 of these bits.)
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
        return torch.Generator(device).manual_seed(number)
