"""`diffpolicy play`: a window in which a person changes steps and delay while a policy runs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from diffpolicy import environment
from diffpolicy.checkpoint import load_policy
from diffpolicy.config import Sampling
from diffpolicy.control.chunk_source import ChunkSource, build_engine
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.external import External
from diffpolicy.environment.pictures import made_to_render
from diffpolicy.play import overlay
from diffpolicy.play.game import Game, Setting
from diffpolicy.play.pace import Pace
from diffpolicy.play.pictures import Pictures
from diffpolicy.policy import Policy
from diffpolicy.teleop.window import Window, check_display
from diffpolicy.terminal.output import say

from .measure.description import Budget, describe
from .measure.evaluator import policy_of
from .measure.facts import look, world_of
from .measure.run import run_of
from .measure.steps import steps_of
from .play_config import PlayConfig

KEYS = {  # character or name of a key: command of the game
    **dict.fromkeys(("+", "=", "[+]"), "more"),
    **dict.fromkeys(("-", "_", "[-]"), "less"),
    **dict.fromkeys(("D", "backspace"), "sooner"),
    **{"d": "later", "space": "pause", "r": "reset", "q": "quit", "escape": "quit"},
}
INSTEAD = ", or film episodes with diffpolicy eval --video 3"
LEAST_PX = 560  # width of the window, for the table
SLOW = 0.05  # share of real time lost that is told


def play(config: PlayConfig) -> None:
    """Open the window; print the successes by budget and delay when it is closed."""
    check_display("play", INSTEAD)
    budgets = load_budgets(config)
    first = budgets[0]
    env_id, kwargs, dt_s, camera = world_of(config, first)
    make = partial(environment.make, env_id, kwargs, config.max_steps, camera=camera)
    facts = look(first, make, config, dt_s, [0] * 4)
    options = RolloutOptions(
        control_dt_s=facts.control_dt_s,
        envs=1,
        batch=1,
        success_from=config.success_from,
        neutral=config.neutral,
        success=config.success,
        score_from=config.score_from,
    )
    sources = _on_one_engine(budgets)
    game = Game(
        partial(made_to_render, make), sources, options, config.seed, Setting(0, config.delay)
    )
    try:
        _run(game, f"diffpolicy · {env_id}")
    finally:
        game.close()
    for line in overlay.summary(game):
        print(line)


def load_budgets(config: PlayConfig) -> list[Budget]:
    """One policy for each number of steps, increasing."""
    if config.policy is not None:
        steps = sorted(set(config.ddim_steps))
        return [External(config.policy, count, config.late) for count in steps]
    checkpoint = load_policy(run_of(config))
    found: list[Budget] = [
        policy_of(
            config, checkpoint, Sampling(n, config.grid, sampler=config.sampler, late=config.late)
        )
        for n in steps_of(config.ddim_steps, checkpoint.specification)
    ]
    return found


def _on_one_engine(budgets: Sequence[Budget]) -> dict[str, ChunkSource]:
    """Budgets by name, built on the engine of the first one, which `auto` chooses for it alone."""
    name = build_engine(budgets[0])
    say(f"engine {name}" if name else "the engine of the policy")
    first, *others = budgets
    found = [first, *(b.with_engine(name) if isinstance(b, Policy) and name else b for b in others)]
    for budget in found:
        build_engine(budget)
    return {describe(budget).name: budget for budget in found}


def _run(game: Game, title: str) -> None:
    """The loop: keys, a tick, a picture, and sleep until the next tick."""
    pictures, period_s = Pictures(game.env), game.options.control_dt_s
    rows = overlay.line_count(len(game.names))
    window = Window(title, _picture(game, pictures), rows, KEYS, "play", INSTEAD, LEAST_PX)
    say(overlay.HELP)
    pace, ticks = Pace(period_s), 0

    def draw() -> None:
        window.draw(_picture(game, pictures), overlay.lines(game, pace.speed))

    try:
        while not game.done:
            for command in window.commands():
                getattr(game, command)()
            pace.ticked()
            if game.tick():
                say(overlay.ended(game))
            ticks += 1
            pace.draw(draw)
            pace.wait()
    finally:
        window.close()
    if pace.lost_s > SLOW * ticks * period_s:
        share = ticks * period_s / (ticks * period_s + pace.lost_s)
        say(f"warning: {share:.2f} of real time; this computer is too slow for it")


def _picture(game: Game, pictures: Pictures) -> Any:
    episode = game.episode
    newest = {key: values[-1] for key, values in episode.history.items()}
    return pictures.of(newest, episode.tick)
