"""The processes of a set builder: one alone, or those that torchrun started."""

import atexit

from debias.pipelines.stylized_set.builder import Group
from debias.train.world import join


def group() -> Group:
    """The group of a torchrun job, connected over gloo; a group of one without torchrun."""
    world = join()
    atexit.register(world.leave)  # the builder's end is the command's, which has no more to say to the others
    return Group(world.rank, world.size, world.wait)
