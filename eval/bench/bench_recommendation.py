"""Size and power of the recommendation, simulated: `python eval/bench/bench_recommendation.py`.

Each cell is a number of simulated sweeps with paired outcomes: a shared difficulty of every seed
makes the outcomes of two budgets correlate by about 0.5. Size is the share of sweeps that
recommend a budget that truly loses the margin or more; power is the share that recommend the
cheapest budget that loses less than half of it. Six rules are compared on the same outcomes:
each budget at α, Bonferroni, Holm, a fixed sequence from the largest budget down, and the ring of
shares that `recommend` uses on the paused clock. `in one tick` is its rule on a clock where all
budgets take one control tick: a better budget that passes stands before a cheaper one.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from diffpolicy.eval.compare import Candidate, family, largest_p, shared_ticks
from diffpolicy.eval.report.table import print_table
from diffpolicy.eval.significance import ALPHA, share_alpha
from diffpolicy.files import write_text

SHARED = 0.72  # correlation of the latent abilities; of the outcomes it is about 0.5
SPREAD = 0.35  # deviation of a latent score
BEST = 0.9  # true mean of the best budget
GRID = np.linspace(-1.5, 2.5, 4001)  # centres of a latent score
SETTINGS = (
    ("success", 100, 0.1),
    ("success", 400, 0.05),
    ("score", 100, 0.1),
    ("score", 400, 0.05),
)


@dataclass(frozen=True)
class Scenario:
    """True losses of the budgets in margins, the cheapest first; the best loses 0."""

    name: str
    losses: tuple[float, ...]
    late: frozenset[int] = frozenset()  # budgets that miss the deadline


SCENARIOS = (
    Scenario("one at the margin", (1, 0)),
    Scenario("two at the margin", (1, 1, 0)),
    Scenario("four at the margin", (1, 1, 1, 1, 0)),
    Scenario("seven at the margin", (1,) * 7 + (0,)),
    Scenario("four larger at the margin", (0, 1, 1, 1, 1)),
    Scenario("the best is late", (1, 1, 1, 0.2, 0), frozenset({4})),
    Scenario("only losers in time", (1, 1, 1, 0), frozenset({3})),
    Scenario("all equal", (0,) * 7),
    Scenario("rising", (15, 1.2, 0.2, 0, 0, 0, 0)),
    Scenario("stale when large", (6, 0.2, 0, 0, 2, 12)),
)


def successes(rng: np.random.Generator, means: np.ndarray, episodes: int) -> np.ndarray:
    """Draw paired successes [budgets, E] with these rates."""
    return _latent(rng, len(means), episodes) < stats.norm.ppf(means)[:, None]


def scores(rng: np.random.Generator, means: np.ndarray, episodes: int) -> np.ndarray:
    """Draw paired scores in [0, 1], [budgets, E], with these means; many are exactly 1."""
    centres = np.interp(means, _clipped_means(GRID), GRID)
    return np.clip(centres[:, None] + SPREAD * _latent(rng, len(means), episodes), 0, 1)


def _clipped_means(centre: np.ndarray) -> np.ndarray:
    """Mean of a normal variable clipped to [0, 1]."""
    low, high = -centre / SPREAD, (1 - centre) / SPREAD
    inside = centre * (stats.norm.cdf(high) - stats.norm.cdf(low))
    return inside - SPREAD * (stats.norm.pdf(high) - stats.norm.pdf(low)) + stats.norm.sf(high)


def _latent(rng: np.random.Generator, budgets: int, episodes: int) -> np.ndarray:
    seed, own = rng.normal(size=episodes), rng.normal(size=(budgets, episodes))
    return math.sqrt(SHARED) * seed + math.sqrt(1 - SHARED) * own


def candidates(scenario: Scenario, outcomes: np.ndarray) -> list[Candidate]:
    """Candidates with 1, 2, 4, … steps."""
    return [
        Candidate(str(2**i), 2**i, 2**i, i not in scenario.late, o, ticks=1)
        for i, o in enumerate(outcomes)
    ]


Rule = Callable[[Sequence[float]], list[int]]  # p-values, the largest budget first -> passed


def each(p: Sequence[float]) -> list[int]:
    """Test every budget at α."""
    return [i for i, value in enumerate(p) if value <= ALPHA]


def bonferroni(p: Sequence[float]) -> list[int]:
    """Test every budget at α / m."""
    return [i for i, value in enumerate(p) if value <= ALPHA / len(p)]


def holm(p: Sequence[float]) -> list[int]:
    """Holm, Scandinavian Journal of Statistics 6:65 (1979)."""
    passed: list[int] = []
    for i in sorted(range(len(p)), key=lambda i: p[i]):
        if p[i] > ALPHA / (len(p) - len(passed)):
            break
        passed.append(i)
    return passed


def fixed_sequence(p: Sequence[float]) -> list[int]:
    """Test from the largest budget down, each at α, up to the first failure."""
    failed = next((i for i, value in enumerate(p) if value > ALPHA), len(p))
    return list(range(failed))


def ring(p: Sequence[float]) -> list[int]:
    """The rule of `recommend`."""
    return share_alpha(p)[0]


def in_one_tick(passed: Sequence[Candidate]) -> list[Candidate]:
    """Those of the budgets that passed which no better one in the same tick replaces."""
    beaten = {shared.budget.name for shared in shared_ticks(passed, True)}
    return [c for c in passed if c.name not in beaten]


IN_ONE_TICK = in_one_tick.__name__
RULES: tuple[Rule, ...] = (each, bonferroni, holm, fixed_sequence, ring)


def simulate(
    scenario: Scenario, outcome: str, episodes: int, margin: float, sweeps: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Simulate sweeps: {rule: (size, power)}."""
    draw = {"success": successes, "score": scores}[outcome]
    losses = np.array(scenario.losses)
    means = np.clip(BEST - margin * losses, 0.01, 0.99)
    wrong = means <= means.max() - margin + 1e-9
    right = [i for i in range(len(losses)) if losses[i] < 0.5 and i not in scenario.late]
    names = [*(rule.__name__ for rule in RULES), IN_ONE_TICK]
    rng, counts = np.random.default_rng(seed), {name: [0, 0] for name in names}
    for _ in range(sweeps):
        found = candidates(scenario, draw(rng, means, episodes))
        tested = family(found)
        p = [largest_p(c, found, margin, True) for c in tested]
        passing = {rule.__name__: [tested[i] for i in rule(p)] for rule in RULES}
        passing[IN_ONE_TICK] = in_one_tick(passing[ring.__name__])
        for name, passed in passing.items():
            if passed:
                chosen = min(found.index(c) for c in passed)
                counts[name][0] += bool(wrong[chosen])
                counts[name][1] += chosen in right[:1]
    return {name: (bad / sweeps, good / sweeps) for name, (bad, good) in counts.items()}


def main() -> None:
    """Print one table for each outcome, number of episodes and margin; --out writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=5000, help="simulated sweeps a cell")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    cells = [(s, *setting) for setting in SETTINGS for s in SCENARIOS]
    rows = []
    for scenario, outcome, episodes, margin in tqdm(cells, unit="cell"):
        found = simulate(scenario, outcome, episodes, margin, options.sweeps)
        about = {**asdict(scenario), "late": sorted(scenario.late)}
        setting = {"outcome": outcome, "episodes": episodes, "margin": margin}
        rules = {n: {"size": size, "power": power} for n, (size, power) in found.items()}
        rows.append({**about, **setting, "sweeps": options.sweeps, "rules": rules})
    for setting in SETTINGS:
        _print(setting, [r for r in rows if (r["outcome"], r["episodes"], r["margin"]) == setting])
    if options.out:
        write_text(options.out, json.dumps(rows, indent=1))


def _print(setting: tuple[str, int, float], rows: Sequence[dict[str, Any]]) -> None:
    outcome, episodes, margin = setting
    print(f"\n{outcome}, {episodes} episodes, margin {margin:g}: size / power in %")
    titles = ["true losses", *(name.replace("_", " ") for name in rows[0]["rules"])]
    print_table(titles, [[r["name"], *map(_cell, r["rules"].values())] for r in rows])
    for rule in (ring.__name__, IN_ONE_TICK):
        largest = max(r["rules"][rule]["size"] for r in rows)
        print(f"largest size of {rule.replace('_', ' ')}: {largest:.1%}")


def _cell(found: dict[str, float]) -> str:
    return f"{100 * found['size']:.1f} / {100 * found['power']:.0f}"


if __name__ == "__main__":
    main()
