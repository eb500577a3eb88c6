import reference
import torch
from networks import rng

from debias.style_transfer.random_filters import SCALES, draw_filters, filter_responses


def test_responses_equal_the_plain_loop():
    images, filters = torch.rand(2, 3, 16, 20, generator=rng()), draw_filters(3, rng(1))
    given, *responses = filter_responses(images, filters)
    assert given is images
    assert len(responses) == len(SCALES)
    for (scale, stride), found in zip(SCALES, responses, strict=True):
        for row, image in enumerate(images.double() - 0.5):
            c, h, w = image.shape
            pooled = image.reshape(c, h // scale, scale, w // scale, scale).mean((2, 4))
            for channel, kernel in enumerate(filters.double()):
                expected = reference.convolution(pooled, kernel, stride).clamp(min=0)
                torch.testing.assert_close(found[row, channel].double(), expected, rtol=0, atol=1e-5)


def test_filters_have_unit_norm_and_no_direction_of_their_own():
    filters = draw_filters(2000, rng())
    assert filters.shape == (2000, 3, 3, 3)
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(2000))
    assert filters.mean(0).abs().max() < 0.03  # about five standard errors


def test_the_generator_alone_decides():
    state = torch.get_rng_state()
    assert torch.equal(draw_filters(4, rng(3)), draw_filters(4, rng(3)))
    assert not torch.equal(draw_filters(4, rng(3)), draw_filters(4, rng(4)))
    assert torch.equal(torch.get_rng_state(), state)


def test_grey_has_no_response_and_the_images_are_not_touched():
    grey = torch.full((1, 3, 16, 16), 0.5)
    _, *responses = filter_responses(grey, draw_filters(5, rng()))
    assert all(not response.any() for response in responses)
    assert bool((grey == 0.5).all())


def test_the_finest_stride_falls_on_every_phase_of_a_block_of_four():
    stride = dict(SCALES)[1]
    assert {position * stride % 4 for position in range(8)} == {0, 1, 2, 3}
