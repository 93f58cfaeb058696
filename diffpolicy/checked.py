"""Configurations whose numbers are in their ranges."""

import math

from diffpolicy.errors import DiffpolicyError

# Options by their range, wherever they occur.
NOT_NEGATIVE = {
    *("clip", "end", "eta", "floor", "latency_ms", "latency_ticks", "ms_per_step"),
    *("noise_scale", "seed", "start", "weight_decay"),
}
POSITIVE = {
    *("batch", "blocks", "chunks", "condition", "control_dt", "deadline_ms", "demonstrations"),
    *("envs", "episodes", "hidden", "latency_seconds", "lr", "max_steps", "minutes", "seconds"),
    *("margin", "steps", "step_timeout", "threads", "workers", "train_timesteps"),
    *("unet_channels", "unet_groups", "unet_kernel"),
    *("observation_horizon", "prediction_horizon", "action_horizon"),
}


class Checked:
    """Every number of a configuration is finite and in its range, or DiffpolicyError."""

    def __post_init__(self):
        for option, value in vars(self).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float):
                    _check_number(option, number)


def _check_number(option: str, number: float) -> None:
    for rule, kept in (
        ("finite", math.isfinite(number)),
        ("positive", option not in POSITIVE or number > 0),
        ("at least 0", option not in NOT_NEGATIVE or number >= 0),
    ):
        if not kept:
            name = option.replace("_", "-")
            raise DiffpolicyError(f"--{name} must be {rule}; got {number}")
