"""The exact planner of Catch: its plan is the height of arrival that physics predicts.

`diffpolicy delays --policy diffpolicy.eval.bench.catch_planner:CatchPlanner --env
diffpolicy.envs:Catch-v0` shows what lateness alone costs, as no chunk of it is ever wrong.
"""

import gymnasium
import numpy as np

from diffpolicy.specification import Horizons


class CatchPlanner:
    """The expert's target for the newest observation, held over the whole chunk."""

    horizons = Horizons(observation=1, prediction=24, action=2)

    def __init__(self, steps: int):
        env = gymnasium.make("diffpolicy.envs:Catch-v0")
        self.act = env.get_wrapper_attr("expert")()

    def noise_shape(self, batch: int) -> tuple[int, int]:
        """(0, batch): no noise."""
        return 0, batch

    def __call__(self, observation: dict[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
        """{"observation": [B, 1, 6]} to targets [B, 24, 1] in metres; zero for a row of zeros."""
        newest = observation["observation"][:, -1]
        targets = [self.act(row) if row.any() else np.zeros(1) for row in newest]
        return np.repeat(np.stack(targets)[:, None], self.horizons.usable, axis=1)
