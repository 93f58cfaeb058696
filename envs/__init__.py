"""Gymnasium environments in MuJoCo. Importing this module registers their ids.

Each environment declares on its unwrapped object the attributes that control needs:
`control_dt_s` (seconds between two actions), `neutral_action` (applied while there is no fresh
action), `position_targets` (true if actions are targets that can be held), `score_key` (the key of
`info` with a score in [0, 1]), and `expert(rng) -> callable(observation) -> action`.
"""

from gymnasium.envs.registration import register

from diffpolicy.environment.headless import prefer_egl

TASKS = {  # id: (module:class, ticks of an episode)
    "PushT-v0": ("pusht:PushTEnv", 300),
    "Balance-v0": ("balance:BalanceEnv", 300),
    "Detour-v0": ("detour:DetourEnv", 60),
    "Catch-v0": ("catch:CatchEnv", 60),
}

prefer_egl()

for task, (home, ticks) in TASKS.items():
    register(task, entry_point=f"{__name__}.{home}", max_episode_steps=ticks)
