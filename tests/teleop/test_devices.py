"""Devices: cursors in [0, 1], from the left and from the top."""

import numpy as np
import pytest

from diffpolicy.teleop.devices import KEY_SPEED, from_keys, from_mouse


def test_the_mouse_is_a_share_of_the_picture_and_stays_in_it():
    np.testing.assert_allclose(from_mouse((100, 300), (200, 400)), (0.5, 0.75))
    np.testing.assert_allclose(from_mouse((250, -3), (200, 400)), (1, 0))


@pytest.mark.parametrize(
    ("held", "direction"),
    [
        ((), (0, 0)),
        (("left",), (-1, 0)),
        (("down",), (0, 1)),
        (("left", "right"), (0, 0)),
        (("right", "up"), (0.5**0.5, -(0.5**0.5))),
    ],
)
def test_arrow_keys_move_at_one_speed_in_every_direction(held, direction):
    found = from_keys(np.array([0.5, 0.5]), held, 0.1)
    np.testing.assert_allclose(found, 0.5 + 0.1 * KEY_SPEED * np.array(direction))


def test_arrow_keys_stop_at_the_edge():
    np.testing.assert_array_equal(from_keys(np.array([0.01, 1.0]), ("left", "down"), 10), (0, 1))
