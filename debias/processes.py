"""This process among those that torchrun started, or alone."""

import os

from debias.pipelines.stylized_set import Group


def group() -> Group:
    """The group of a torchrun job, connected over gloo; a group of one without torchrun."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Group()
    import torch.distributed as dist

    dist.init_process_group("gloo")

    def wait() -> None:
        dist.barrier()

    return Group(dist.get_rank(), world_size, wait)
