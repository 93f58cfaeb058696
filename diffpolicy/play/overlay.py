"""Lines below the picture of a game; a tab begins the next column."""

from collections.abc import Sequence

from diffpolicy.play.game import Count, Game, Setting

HELP = "+ - steps · D delay, shift-D less · SPACE pause · R restart · Q quit"
REAL_TIME = 0.95  # of it, or more, is told as real time
ROWS, COLUMNS = 6, 6  # of the table of counts: budgets and delays around the present ones
OTHERS = 7  # lines beside those of the budgets


def line_count(budgets: int) -> int:
    """Number of lines of a game with so many budgets."""
    return OTHERS + min(ROWS, budgets)


def lines(game: Game, speed: float) -> list[str]:
    """The present state, the counts by budget and delay, and the keys; speed: 1 is real time."""
    e, dt_s = game.episode, game.options.control_dt_s
    pace = "paused" if game.paused else "real time" if speed >= REAL_TIME else f"{speed:.2f}"
    if pace[0].isdigit():
        pace += " of real time: too slow for this computer"
    return [
        f"seed {e.seed} · tick {e.tick}, {e.tick * dt_s:.2f} s · {pace}",
        f"{_budget(game)} · {_delay(game)}",
        _age(game),
        _outcome(game),
        *_table(game),
        HELP,
    ]


def _budget(game: Game) -> str:
    name, wanted = game.names[game.running.budget], game.names[game.wanted.budget]
    return name if wanted == name else f"{name} (next chunk: {wanted})"


def _delay(game: Game) -> str:
    delay, wanted = game.running.delay, game.wanted.delay
    found = f"delay {ticks(delay)}, {1000 * delay * game.options.control_dt_s:.0f} ms"
    return found if wanted == delay else f"{found} (next chunk: {ticks(wanted)})"


def _age(game: Game) -> str:
    controller, dt_s = game.episode.controller, game.options.control_dt_s
    starved = f"starved for {ticks(controller.starved_ticks)}"
    last = len(controller.applied) - 1
    if last < 0:
        return f"no action yet · {starved}"
    if controller.starved[-1:] == [last]:
        return f"no action of a chunk: starved · {starved}"
    age = controller.ages[-1]
    return f"action age {ticks(age)}, {1000 * age * dt_s:.0f} ms · {starved}"


def _outcome(game: Game) -> str:
    outcome, failure = game.episode.outcome, game.episode.failure
    if failure:
        return f"failure: {failure}"
    reached = "success" if outcome.success else "failure" if game.over else "no success yet"
    if outcome.success_tick is not None:
        reached += f" (first at tick {outcome.success_tick})"
    return reached if outcome.score_key is None else f"{reached} · score {outcome.score:.3g}"


def _table(game: Game) -> list[str]:
    """Successes of ended episodes: a row for each budget, a column for each delay."""
    budgets = _around(range(len(game.names)), game.wanted.budget, ROWS)
    known = sorted({game.wanted.delay, *(setting.delay for setting in game.counts)})
    delays = _around(known, game.wanted.delay, COLUMNS)
    mixed = f" (changed in between: {shown(game.mixed)})" if game.mixed.episodes else ""
    rows = [
        "\t".join([game.names[b], *(shown(game.counts.get(Setting(b, d))) for d in delays)])
        for b in budgets
    ]
    head = f"successes by steps and delay in ticks{mixed}"
    return [head, "\t".join(["", *map(str, delays)]), *rows]


def _around(values: Sequence[int], present: int, most: int) -> Sequence[int]:
    """At most so many neighbouring values, with the present one among them."""
    place = values.index(present)
    first = max(0, min(place - most // 2, len(values) - most))
    return values[first : first + most]


def shown(count: Count | None) -> str:
    """Successes of episodes; a dash for none."""
    return f"{count.success}/{count.episodes}" if count else "–"


def ticks(count: int) -> str:
    """A number of control ticks."""
    return f"{count} tick{'s' * (count != 1)}"


def ended(game: Game) -> str:
    """One line on the episode that has just ended."""
    e = game.episode
    if len(game.used) == 1:
        [setting] = game.used
        about = f"{game.names[setting.budget]}, delay {ticks(setting.delay)}"
    else:
        about = "changed in between"
    return f"seed {e.seed}: {about}: {_outcome(game)}"


def summary(game: Game) -> list[str]:
    """The counts after the game, a line each."""
    found = [
        f"{game.names[setting.budget]}, delay {ticks(setting.delay)}: {shown(count)} successes"
        for setting, count in sorted(game.counts.items())
    ]
    if game.mixed.episodes:
        found.append(f"changed in between: {shown(game.mixed)} successes")
    return found or ["no episode has ended"]
