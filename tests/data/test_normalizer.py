"""Normalisers come back to where they started, and put data where the sampler expects it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffpolicy.data.normalizer import FITS, fit_gaussian, fit_limits

quarters = st.integers(-4000, 4000).map(lambda n: np.float32(n / 4))
data = st.tuples(st.integers(1, 20), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=quarters)
)
spread_out = data.filter(lambda x: (np.ptp(x, axis=0) > 0).all())


@given(data, st.sampled_from(sorted(FITS)))
def test_unnormalize_undoes_normalize(x, kind):
    normalizer = FITS[kind](x)
    there = normalizer.normalize(x)
    assert there.dtype == np.float32
    assert np.allclose(normalizer.unnormalize(there), x, rtol=1e-4, atol=1e-2)


@given(spread_out)
def test_limits_go_to_plus_and_minus_one(x):
    normalized = fit_limits(x).normalize(x)
    tolerance = 1e-6 * (1 + np.abs(x).max(0) / np.ptp(x, axis=0))
    assert (np.abs(normalized.min(0) + 1) <= tolerance).all()
    assert (np.abs(normalized.max(0) - 1) <= tolerance).all()


@pytest.mark.parametrize(("low", "high"), [(0, 512), (-3, 5), (-1, 1), (0.25, 0.75)])
def test_limits_are_exact_where_numbers_are_round(low, high):
    x = np.array([[low], [high]], np.float32)
    normalizer = fit_limits(x)
    assert normalizer.normalize(x).tolist() == [[-1], [1]]
    assert normalizer.unnormalize(np.array([[-1], [1]], np.float32)).tolist() == x.tolist()


magnitudes = st.floats(-100, 100, width=32) | st.floats(-(2.0**100), 2.0**100, width=32)


@given(magnitudes, st.sampled_from(sorted(FITS)), st.integers(0, 2))
def test_a_constant_dimension_carries_nothing_and_comes_out_exactly(value, kind, ulps):
    """Also one that only rounding changes."""
    x = np.full((5, 2), value, np.float32)
    for _ in range(ulps):
        x[0, 0] = np.nextafter(x[0, 0], np.float32(np.inf))
    x[:, 1] = [0, 1, 2, 3, 4]
    normalizer = FITS[kind](x)
    assert normalizer.scale[0] == 0
    seen = np.array([[value, 2], [-7e20, 2], [0, 2]], np.float32)
    assert normalizer.normalize(seen)[:, 0].tolist() == [0] * 3
    sampled = np.array([[0, 0.5], [-3, 0.5], [np.nan, 0.5]], np.float32)
    found = normalizer.unnormalize(sampled)
    assert found.dtype == np.float32
    assert (np.abs(found[:, 0] - x[1, 0]) <= ulps * np.spacing(np.abs(x[1, 0]))).all()
    assert np.ptp(found[:, 0]) == 0
    alone = FITS[kind](x[:, 1:])
    assert alone.constant is None
    assert np.array_equal(found[:, 1:], alone.unnormalize(sampled[:, 1:]))


@pytest.mark.parametrize("kind", sorted(FITS))
@pytest.mark.parametrize("scale", [1e-30, 8e-7, 1.0, 1e30])
@pytest.mark.parametrize("centre", [0.0, 1000.0])
def test_errors_are_in_proportion_to_the_range(kind, scale, centre):
    """A small range is no constant: only its size beside the numbers matters."""
    x = np.linspace(centre - 1, centre + 1, 101, dtype=np.float32)[:, None] * np.float32(scale)
    normalizer = FITS[kind](x)
    normal = normalizer.normalize(x)
    assert normalizer.constant is None and 0.99 < normal.max() < 2
    error = np.abs(normalizer.unnormalize(normal) - x) / scale
    assert error.max() < 1e-6 * (1 + centre)
    assert normalizer.unnormalize(normal + np.float32(0.1)).max() > x.max()


def test_numbers_too_small_for_float32_are_constant():
    x = np.array([[-1e-40], [1e-40]], np.float32)
    normalizer = fit_limits(x)
    assert normalizer.normalize(x).tolist() == [[0], [0]]
    assert normalizer.unnormalize(x).tolist() == [[0], [0]]


def test_gaussian_data_gets_its_moments():
    x = np.random.default_rng(0).normal([5, -200], [0.1, 30], (1000, 2)).astype(np.float32)
    normalized = fit_gaussian(x).normalize(x)
    assert normalized.mean(0) == pytest.approx([0, 0], abs=1e-4)
    assert normalized.std(0) == pytest.approx([1, 1], abs=1e-4)


@pytest.mark.parametrize("kind", sorted(FITS))
def test_any_leading_shape_is_served(kind):
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    normalizer = FITS[kind](x)
    chunks = normalizer.normalize(x.reshape(2, 3, 3))
    assert np.array_equal(chunks.reshape(6, 3), normalizer.normalize(x))
