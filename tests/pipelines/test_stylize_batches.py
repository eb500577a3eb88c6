"""The schedule and its threads give what a loop over single images gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stylizers import untrained

from debias.pipelines.contact_sheet import to_uint8
from debias.pipelines.stylized_set.batches import Job, Step, run, schedule
from debias.style_transfer import Images

COUNT = 11
IMAGES = torch.rand(COUNT, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def jobs_of_ring(stride: int = 1) -> list[Job]:
    return [Job(content, (content + stride) % COUNT, content) for content in range(COUNT)]


def parts(jobs: list[Job], size: int) -> list[list[Job]]:
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def loaded(steps: list[Step]) -> list[Images]:
    return [IMAGES[list(step.images)] for step in steps]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 11, 16])
@pytest.mark.parametrize("stride", [1, 3])
def test_results_equal_a_loop_over_single_images(batch_size: int, stride: int) -> None:
    stylizer = untrained()
    jobs = jobs_of_ring(stride)
    steps = schedule(parts(jobs, batch_size), batch_size, external=False)
    found = {}
    for results in run(
        steps, loaded(steps), stylizer, lambda job, pixels: (job, pixels), alpha=0.7, external=None, threads=3
    ):
        found |= {job.key: pixels for job, pixels in results}
    assert sorted(found) == list(range(COUNT))
    for job in jobs:
        alone = stylizer(IMAGES[[job.content]], IMAGES[[job.style]], 0.7)
        np.testing.assert_array_equal(found[job.key], to_uint8(alone)[0])


def test_a_ring_encodes_each_image_once_but_one() -> None:
    steps = schedule(parts(jobs_of_ring(), 4), 4, external=False)
    first = steps[0]
    assert first.jobs == ()  # the last image of the ring takes the style of the first one
    assert set(first.images) == {0}
    assert [len(step.jobs) for step in steps[1:]] == [3, 4, 4]
    assert all(len(step.images) == 4 for step in steps)


def test_a_gap_borrows_the_one_style_it_lacks() -> None:
    batches = parts(jobs_of_ring(), 2)
    steps = schedule([batches[0], batches[3]], 2, external=False)
    assert [(step.images, len(step.jobs)) for step in steps] == [((8, 8), 0), ((6, 7), 2), ((2, 2), 0), ((0, 1), 2)]


def test_external_styles_need_no_other_images() -> None:
    stylizer = untrained()
    jobs = [Job(content, content % 2, content) for content in range(COUNT)]
    steps = schedule(parts(jobs, 4), 4, external=True)
    assert [len(step.jobs) for step in steps] == [3, 4, 4]
    styles = stylizer.statistics(IMAGES[:2])
    results = run(steps, loaded(steps), stylizer, lambda job, pixels: pixels, alpha=1.0, external=styles, threads=2)
    last = next(iter(results))
    expected = to_uint8(stylizer(IMAGES[8:11], IMAGES[[0, 1, 0]], 1.0))
    np.testing.assert_array_equal(np.stack(last), expected)


def test_an_error_of_a_worker_is_raised_and_ends_the_run() -> None:
    def fail(job: Job, pixels: object) -> None:
        raise OSError(28, "No space left on device")

    steps = schedule(parts(jobs_of_ring(), 2), 2, external=False)
    with pytest.raises(OSError, match="No space"):
        list(run(steps, loaded(steps), untrained(), fail, alpha=1.0, external=None, threads=2))


def test_the_callers_thread_count_stays() -> None:
    before = torch.get_num_threads()
    steps = schedule(parts(jobs_of_ring(), 4), 4, external=False)
    list(run(steps, loaded(steps), untrained(), lambda job, pixels: None, alpha=1.0, external=None, threads=2))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_stops_with_the_stylizers_origin(value: float) -> None:
    stylizer = replace(untrained(), origin="mine.safetensors")
    head = stylizer.network.head
    assert isinstance(head, torch.nn.Conv2d)
    assert head.bias is not None
    head.bias.data[0] = value  # at one place of each block
    steps = schedule(parts(jobs_of_ring(), 4), 4, external=False)
    with pytest.raises(ValueError, match=r"^mine\.safetensors: a stylizer whose output is no image; fit it again"):
        list(run(steps, loaded(steps), stylizer, lambda job, pixels: None, alpha=0.5, external=None, threads=2))
