"""Augmentation: crops of whole windows, colours within their range, draws of one generator."""

import pytest
import torch

from diffpolicy.training.augment import LUMA, augment, colour_jitter, displace, random_crop
from diffpolicy.training.distributed import Ranks

B, T_O, SIDE, CROP = 6, 2, 7, (5, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(channels: int = 3, batch: int = B) -> torch.Tensor:
    shape = batch, T_O, SIDE, SIDE, channels
    return torch.randint(256, shape, generator=seeded(9), dtype=torch.uint8)


def places(whole: torch.Tensor, cropped: torch.Tensor) -> list[tuple[int, int]]:
    """Top and left of each window's crop, which fits all its frames."""
    height, width = cropped.shape[2:4]
    return [
        next(
            (top, left)
            for top in range(SIDE - height + 1)
            for left in range(SIDE - width + 1)
            if torch.equal(window[:, top : top + height, left : left + width], crop)
        )
        for window, crop in zip(whole, cropped, strict=True)
    ]


def test_a_crop_is_one_part_of_all_frames_of_its_window():
    cropped = random_crop(pictures(), CROP, seeded())
    assert cropped.dtype == torch.uint8 and cropped.shape == (B, T_O, *CROP, 3)
    assert len(set(places(pictures(), cropped))) > 1


def test_every_place_is_as_likely():
    many = pictures(batch=600)
    found = places(many, random_crop(many, CROP, seeded()))
    counts = [found.count((top, left)) for top in range(3) for left in range(4)]
    assert sum(counts) == 600 and min(counts) > 25 and max(counts) < 80


def test_a_crop_of_the_whole_is_the_picture():
    assert torch.equal(random_crop(pictures(), (SIDE, SIDE), seeded()), pictures())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_stay_in_range_and_alike_in_all_frames(channels):
    whole = pictures(channels)
    whole[:, 1, :3] = whole[:, 0, :3]
    found = colour_jitter(whole, 0.5, seeded())
    assert found.dtype == torch.float32 and found.shape == whole.shape
    assert found.min() >= 0 and found.max() <= 255 and not torch.equal(found, whole.float())
    assert torch.equal(found[:, 0, :3], found[:, 1, :3])
    assert not torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[..., 3:], whole[..., 3:].float())


def luma(colours: torch.Tensor) -> torch.Tensor:
    return (colours * colours.new_tensor(LUMA)).sum(-1, keepdim=True)


def test_colours_change_by_brightness_contrast_and_saturation_in_this_order():
    whole = pictures() // 4 + 96  # far enough from 0 and 255 that nothing is clipped
    brightness, contrast, saturation = (
        0.8 + 0.4 * torch.rand((3, B, 1, 1, 1), generator=seeded())[..., None]
    ).double()
    bright = whole.double() * brightness
    mean = luma(bright).mean((1, 2, 3), keepdim=True)
    strong = mean + contrast * (bright - mean)
    grey = luma(strong)
    expected = grey + saturation * (strong - grey)
    found = colour_jitter(whole, 0.2, seeded())
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-3)


def test_grey_stays_grey():
    found = colour_jitter(pictures(1).expand(-1, -1, -1, -1, 3), 0.5, seeded())
    torch.testing.assert_close(found.amax(-1), found.amin(-1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("colour", [0.0, 0.3])
def test_the_draws_are_those_of_the_generator(colour):
    observations = {"camera": pictures(), "state": torch.zeros(B, T_O, 2)}
    once, again, other = (
        augment(observations, {"camera": CROP}, colour, seeded(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(once["camera"], again["camera"])
    assert not torch.equal(once["camera"], other["camera"])
    assert once["state"] is observations["state"]


def test_vectors_take_no_draw():
    generator = seeded()
    augment({"state": torch.zeros(B, T_O, 2)}, {}, 0.5, generator)
    assert torch.equal(generator.get_state(), seeded().get_state())


def test_a_displacement_is_one_for_all_frames_of_a_window_and_leaves_pictures():
    vectors = torch.randn(4000, T_O, 3, generator=seeded())
    observations = {"state": vectors, "camera": pictures()}
    found = displace(observations, 0.02, seeded(1))
    moved = found["state"] - vectors
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), atol=1e-6, rtol=0)
    assert found["camera"] is observations["camera"]
    assert float(moved.mean()) == pytest.approx(0, abs=5 * 0.02 / 12000**0.5)
    assert float(moved[:, 0].std()) == pytest.approx(0.02, rel=0.03)
    assert torch.equal(displace(observations, 0.02, seeded(1))["state"], found["state"])


def test_processes_displace_their_parts_as_one_does_the_batch():
    vectors = torch.zeros(6, T_O, 3)
    whole = displace({"state": vectors}, 1.0, seeded())["state"]
    parts = [
        displace({"state": vectors[:3]}, 1.0, seeded(), Ranks(rank, 2))["state"] for rank in (0, 1)
    ]
    assert torch.equal(torch.cat(parts), whole)
