"""Cautions about budgets that are told before their episodes run: memory, and starvation."""

from diffpolicy.control import latency
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.external import External
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.receding_horizon import starves
from diffpolicy.denoisers.encoders import layer_outputs
from diffpolicy.policy import Policy
from diffpolicy.terminal.output import say

from .description import Budget, describe


def tell_memory(policy: Budget, options: RolloutOptions, processes: int) -> None:
    """Print the memory of the pictures and of their encoder, if a run's policy observes any."""
    found = 0 if isinstance(policy, External) else picture_bytes(policy, options)
    if found:
        say(
            f"memory of pictures and their encoder: about {found / 1e6:.0f} MB for each worker "
            f"(workers: {processes}), with {options.envs} environments and a batch of "
            f"{options.batch}"
        )


def picture_bytes(policy: Policy, options: RolloutOptions) -> int:
    """Bytes of the histories in a process, and of one batch with what each layer makes of it."""
    pixels = sum(spec.size for spec in policy.observations.values() if spec.is_picture)
    layers = 4 * sum(layer_outputs(policy.specification.model, policy.observations))
    batches = options.batch * (pixels + layers)
    return policy.horizons.observation * (options.envs * pixels + batches)


def warn_of_starvation(policy: Budget, profile: LatencyProfile, control_dt_s: float) -> None:
    """Print a warning if inference outlasts the chunk."""
    if outruns(policy, profile, control_dt_s):
        h = policy.horizons
        print(
            f"warning: {describe(policy).name} can take {latency.slow_ms(profile):.1f} ms; the "
            f"{h.usable} usable actions of a chunk run out before the next chunk arrives"
        )


def outruns(policy: Budget, profile: LatencyProfile, control_dt_s: float) -> bool:
    """True if a slow inference (p99) starves the controller."""
    delay = latency.delay_ticks(latency.slow_ms(profile), control_dt_s)
    ticks = policy.late.action_horizon(policy.horizons.action)
    return starves(delay, ticks, policy.horizons.usable)
