"""Error of float32 over the whole chain: `python eval/bench/bench_precision.py [--run RUN]`.

The reference is float64 with the same noise and weights; actions are normalised to ±1. "sampler"
uses an exact denoiser, so that only the sampler's arithmetic differs; "whole loop" runs the
network in both precisions too.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.engines.eager import EagerEngine
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import Chain, make_chain
from diffpolicy.sampling.noise import alpha_bar_table
from diffpolicy.sampling.steps import noise_count, sample

BATCH = 256
MEAN, STD = 0.3, 0.3
TABLE = alpha_bar_table(ModelConfig().schedule, ModelConfig().train_timesteps)
SAMPLINGS = [
    Sampling(k, grid, eta=eta)
    for k in (1, 10, 100)
    for grid in ("trailing", "leading")
    for eta in (0.0, 1.0)
]


def oracle_difference(chain: Chain, noise: Tensor) -> float:
    """Largest difference with the exact denoiser of N(MEAN, STD²)."""

    def denoise(x: Tensor, k: int) -> Tensor:
        a, b = (float(ᾱ) ** 0.5 for ᾱ in (TABLE[chain.rows[k].t], 1 - TABLE[chain.rows[k].t]))
        x0 = MEAN + a * STD**2 / (a**2 * STD**2 + b**2) * (x - a * MEAN)
        return (x - a * x0) / b

    noise = noise.float().double()  # the same numbers in both
    single, double = (sample(denoise, n, chain.rows) for n in (noise.float(), noise))
    return (single - double).abs().max().item()


def loop_difference(checkpoint: Checkpoint, sampling: Sampling, rng: np.random.Generator) -> float:
    """Largest difference over network, time embedding and sampler, in normalised units."""
    policy = Policy(checkpoint, sampling)
    shape = (BATCH, policy.horizons.observation, policy.task.observation_dim)
    observation = torch.from_numpy(rng.uniform(-1, 1, shape)).float()
    noise = torch.from_numpy(rng.standard_normal(policy.noise_shape(BATCH))).float()
    exact = EagerEngine(replace(policy.job(BATCH), precision="float64"))
    double = exact(observation.double(), noise.double())
    return (policy.engine(BATCH)(observation, noise) - double).abs().max().item()


def main() -> None:
    """Print a line for each sampling configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a trained run, for the whole loop")
    run = parser.parse_args().run
    checkpoint = load_policy(run) if run else None
    rng = np.random.default_rng(0)
    print(f"largest difference of float32 from float64 over {BATCH} chunks in [-1, 1]")
    print("steps  grid      eta    sampler  whole loop")
    for sampling in SAMPLINGS:
        chain = make_chain(ModelConfig(), 1.0, sampling)
        noise = torch.from_numpy(rng.standard_normal((noise_count(chain.rows), BATCH, 16, 2)))
        difference = oracle_difference(chain, noise)
        whole = (
            f"{loop_difference(checkpoint, sampling, rng):10.1e}" if checkpoint else "         -"
        )
        what = f"{sampling.ddim_steps:5d}  {sampling.grid:8s}  {sampling.eta:3g}"
        print(f"{what}  {difference:9.1e}  {whole}")


if __name__ == "__main__":
    main()
