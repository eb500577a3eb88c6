import pytest
import reference
import torch

from debias.style_transfer.quality import closure, edge_correlation, sobel


def pictures(count=5, size=12, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def features(images):
    """Two levels, linear and not."""
    return [images, (images[:, :, ::2, 1::2] - 0.4).relu()]


CONTENT, STYLE, OUTPUT = pictures(), pictures(seed=1) ** 2, pictures(seed=2) * 0.7


def test_closure_is_one_at_the_style_and_zero_at_the_content():
    assert closure(STYLE, CONTENT, STYLE, features) == 1
    assert closure(CONTENT, CONTENT, STYLE, features) == 0


def test_closure_equals_the_plain_loop():
    expected = reference.closure(features(OUTPUT), features(CONTENT), features(STYLE))
    assert closure(OUTPUT, CONTENT, STYLE, features) == pytest.approx(expected, abs=1e-4)


def test_closure_counts_the_way_and_not_the_place():
    # Halfway in the statistics: pixels scaled so that mean and deviation lie in the middle.
    style = CONTENT * 0.5
    halfway = closure(CONTENT * 0.75, CONTENT, style, lambda images: [images])
    assert halfway == pytest.approx(0.5, abs=0.01)
    assert closure(CONTENT * 1.25, CONTENT, style, features) < 0  # away from the style


def test_a_filter_that_no_style_excites_does_not_decide():
    def with_a_dead_one(images):
        dead = images[:, :1] * 1e-6
        return [torch.cat([images, dead], 1)]

    plain = closure(OUTPUT, CONTENT, STYLE, lambda images: [images])
    assert closure(OUTPUT, CONTENT, STYLE, with_a_dead_one) == pytest.approx(plain, abs=0.05)


def test_edges_of_the_same_drawing_correlate():
    assert edge_correlation(CONTENT, CONTENT) == pytest.approx(1, abs=1e-6)
    assert edge_correlation(CONTENT * 0.3 + 0.5, CONTENT) == pytest.approx(1, abs=1e-4)  # contrast is no edge
    assert edge_correlation(1 - CONTENT, CONTENT) == pytest.approx(1, abs=1e-4)  # nor is the sign


def test_edges_of_unrelated_images_do_not():
    assert abs(edge_correlation(pictures(20, 48), pictures(20, 48, seed=1))) < 0.02
    blank = torch.full_like(CONTENT, 0.5)
    assert edge_correlation(blank, CONTENT) == pytest.approx(0, abs=1e-6)


def test_edge_correlation_is_that_of_pearson_per_image():
    pairs = zip(sobel(OUTPUT).flatten(1), sobel(CONTENT).flatten(1), strict=True)
    expected = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
    assert edge_correlation(OUTPUT, CONTENT) == pytest.approx(sum(expected) / len(expected), abs=1e-5)


def test_sobel_equals_the_plain_loop():
    found = sobel(CONTENT[:2])
    assert found.shape == (2, 1, 10, 10)
    for row in range(2):
        torch.testing.assert_close(found[row, 0].double(), reference.sobel(CONTENT[row]), rtol=0, atol=1e-5)


def test_sobel_of_a_ramp_is_its_slope():
    ramp = torch.linspace(0, 1, 9).expand(1, 3, 9, 9)
    torch.testing.assert_close(sobel(ramp), torch.full((1, 1, 7, 7), 8 * 0.125))
    torch.testing.assert_close(sobel(ramp.mT), torch.full((1, 1, 7, 7), 8 * 0.125))
