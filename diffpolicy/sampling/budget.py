"""What a step budget is called, and what it really does, in words."""

from typing import TYPE_CHECKING

from diffpolicy.config import Sampling
from diffpolicy.sampling.chain import audit

if TYPE_CHECKING:
    from diffpolicy.policy import Policy

SHOWN = 12  # timesteps that an audit line prints


def sampler_name(policy: "Policy") -> str:
    """As it stands in tables: "10 steps", "10 steps, leading, η 0.5", or "DDPM 100"."""
    if policy.regression:
        return "regression"
    steps = policy.ddim_steps
    if is_ddpm(policy):
        return f"DDPM {steps}"
    return ", ".join(filter(None, [f"{steps} step{'s' if steps > 1 else ''}", variant(policy)]))


def is_ddpm(policy: "Policy") -> bool:
    """Ancestral sampling over the whole chain."""
    timesteps = policy.specification.model.train_timesteps
    return policy.sampling == Sampling(timesteps, eta=1.0)


def kind(policy: "Policy") -> str:
    """What its line in a plot is: DDPM, regression, or how it differs from the default sampler."""
    if is_ddpm(policy):
        return "DDPM"
    return "regression" if policy.regression else variant(policy)


def variant(policy: "Policy") -> str:
    """What differs from the default sampler, but for the number of steps; "" where nothing does."""
    s, usual = policy.sampling, Sampling()
    parts = {
        f"grid {s.grid}": s.grid != usual.grid,
        f"start {s.start}": s.start is not None,
        f"end {s.end}": s.end != usual.end,
        f"η {s.eta:g}": s.eta != usual.eta,
        f"noise × {s.noise_scale:g}": s.noise_scale != usual.noise_scale,
        f"clip {s.clip}": s.clip is not None,
    }
    return ", ".join(text for text, differs in parts.items() if differs)


def audit_line(policy: "Policy") -> str:
    """The audit of its chain as one line for the terminal."""
    name, found = sampler_name(policy), audit(policy.chain)
    if policy.regression:
        return f"{name}: 1 network evaluation, no denoising"
    evals, times = found["network_evals"], [str(t) for t in found["timesteps"]]
    if len(times) > SHOWN:
        times = [*times[: SHOWN // 2], "…", *times[-SHOWN // 2 :]]
    return (
        f"{name}: {evals} network evaluation{'s' * (evals > 1)} at t = {' '.join(times)}; "
        f"√ᾱ at the start {found['sqrt_alpha_bar_start']:.4f}; duplicates {found['duplicates']}"
    )
