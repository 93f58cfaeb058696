"""Names of the tasks that `diffpolicy.envs` registers, read from Gymnasium's registry."""

from importlib import import_module

import gymnasium

MODULE = "diffpolicy.envs"


def registered() -> tuple[str, ...]:
    """Names such as PushT-v0, in the order of registration."""
    import_module(MODULE)
    found = gymnasium.registry.items()
    return tuple(name for name, spec in found if str(spec.entry_point).startswith(MODULE))


def env_id(task: str) -> str:
    """Gymnasium id of a task, with the module that registers it."""
    return f"{MODULE}:{task}"


TASKS = registered()
