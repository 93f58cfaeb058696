"""Memory that an evaluation of pictures needs."""

from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.external import External
from diffpolicy.denoisers.encoders import layer_outputs
from diffpolicy.policy import Policy

from .description import Budget


def tell_memory(policy: Budget, options: RolloutOptions, processes: int) -> None:
    """Print the memory of the pictures and of their encoder, if a run's policy observes any."""
    found = 0 if isinstance(policy, External) else picture_bytes(policy, options)
    if found:
        print(
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
