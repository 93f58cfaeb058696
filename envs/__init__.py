"""Gymnasium environments in MuJoCo. Importing this module registers their ids.

Each environment declares, on its unwrapped object, what a control harness has to know:
`control_dt_s` (seconds between two actions), `neutral_action` (what to apply while no fresh
action is at hand), `position_targets` (whether actions are targets that may be held), `score_key`
(the key of `info` with a score in [0, 1]), and it may offer
`expert(rng) -> callable(observation) -> action`.
"""

from gymnasium.envs.registration import register

from diffpolicy.environment.headless import prefer_egl

prefer_egl()

register("PushT-v0", entry_point="diffpolicy.envs.pusht:PushTEnv", max_episode_steps=300)
register("Balance-v0", entry_point="diffpolicy.envs.balance:BalanceEnv", max_episode_steps=300)
register("Detour-v0", entry_point="diffpolicy.envs.detour:DetourEnv", max_episode_steps=60)
register("Catch-v0", entry_point="diffpolicy.envs.catch:CatchEnv", max_episode_steps=60)
