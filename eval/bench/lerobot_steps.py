"""Control steps of LeRobot's own code, timed on request; started by `bench_lerobot_policy.py`.

    python lerobot_steps.py POLICY STEPS THREADS

reads numbers of control steps from standard input and answers each with their times in ms, as a
JSON list. A step is numpy to numpy, a new chunk each time: preprocessor, policy, postprocessor. It
runs in an environment of LeRobot's (0.4.4) and imports nothing of this project.
"""

import importlib
import json
import sys
import time
import types
from contextlib import redirect_stdout
from typing import Any

import numpy as np


def step_of(folder: str, steps: int, threads: int) -> Any:
    """Function of one control step of the policy in a folder, with random observations."""
    # Registers operators that a torchvision without its own extension does not have.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("unused"))
    torch: Any = importlib.import_module("torch")
    models: Any = importlib.import_module("lerobot.policies.diffusion.modeling_diffusion")
    processor: Any = importlib.import_module("lerobot.processor")
    converters: Any = importlib.import_module("lerobot.processor.converters")
    torch.set_num_threads(threads)
    policy = models.DiffusionPolicy.from_pretrained(folder).eval()
    policy.diffusion.num_inference_steps = steps
    pipeline = processor.PolicyProcessorPipeline.from_pretrained
    before = pipeline(folder, config_filename="policy_preprocessor.json")
    after = pipeline(
        folder,
        config_filename="policy_postprocessor.json",
        to_transition=converters.policy_action_to_transition,
        to_output=converters.transition_to_policy_action,
    )
    rng = np.random.default_rng(0)
    shapes = {key: feature.shape for key, feature in policy.config.input_features.items()}
    observation = {key: rng.random(shape, np.float32) for key, shape in shapes.items()}
    policy.reset()

    @torch.inference_mode()
    def step() -> np.ndarray:
        policy._queues["action"].clear()  # so that every step computes a chunk
        tensors = {key: torch.from_numpy(x) for key, x in observation.items()}
        return after(policy.select_action(before(tensors))).numpy()

    return step


def main() -> None:
    """Answer the requests of standard input."""
    folder, steps, threads = sys.argv[1:]
    with redirect_stdout(sys.stderr):  # the answers alone are for standard output
        step = step_of(folder, int(steps), int(threads))
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            step()
            times.append(1000 * (time.perf_counter() - begin))
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
