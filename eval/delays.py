"""`diffpolicy delays`: what a constant delay costs, whatever computes; the price of being late."""

import json
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from diffpolicy.checkpoint import load_policy, policy_path
from diffpolicy.config import sampling_of
from diffpolicy.control.latency import constant_ticks
from diffpolicy.files import check_writable, write_bytes, write_text

from .config import DelaysConfig
from .evaluate import World, policy_of, print_records
from .measure.provenance import header, set_threads
from .report.plots import is_rate, png


def delays(config: DelaysConfig) -> dict[str, Any]:
    """The same episodes at every delay; writes delays.json and delays.png."""
    set_threads(config.threads)
    out = config.out or policy_path(config.run).parent / "delays"
    policy = policy_of(config, load_policy(config.run), sampling_of(config))
    with World(config, policy, out / "episodes.jsonl") as world:
        world.prepare(policy, ["simulated"])
        for name in ("delays.json", "delays.png"):
            check_writable(out / name)
        dt = world.options.control_dt_s
        records = [
            {**world.record(policy, "simulated", constant_ticks(ticks, dt))[0], "ticks": ticks}
            for ticks in sorted(set(config.ticks))
        ]
    result = {"header": header(policy.device, **world.describe()), "records": records}
    write_text(out / "delays.json", json.dumps(result, indent=1))
    print_records(records)
    plot = png(success_against_delay(result))
    write_bytes(out / "delays.png", plot)
    world.kept.remove()
    print(f"wrote delays.json and delays.png to {out}")
    return result


def success_against_delay(result: dict[str, Any]) -> Figure:
    """Success and score over the delay in control ticks, 95 % intervals.

    Scores beyond [0, 1] have an axis of their own on the right.
    """
    figure, axis = plt.subplots(figsize=(5.5, 3.8), constrained_layout=True)
    records = result["records"]
    ticks = [r["ticks"] for r in records]
    beyond = not all(is_rate(r["score_ci"]) for r in records)
    for name, rate, interval, of, colour in (
        ("success", "success_rate", "success_ci", axis, "C0"),
        ("score", "score_mean", "score_ci", axis.twinx() if beyond else axis, "C1"),
    ):
        y = [r[rate] for r in records]
        spread = [[abs(r[interval][i] - r[rate]) for r in records] for i in (0, 1)]
        of.errorbar(ticks, y, spread, fmt="o-", capsize=3, ms=4, label=name, color=colour)
        of.set_ylabel(name if beyond else "")
    dt_ms = 1000 * result["header"]["control_dt_s"]
    axis.set(
        xlabel=f"delay of every chunk (control ticks of {dt_ms:g} ms)",
        xticks=ticks,
        ylim=(-0.03, 1.05),
        title=f"{result['header']['env']}, {records[0]['name']}",
    )
    axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2) if beyond else axis.legend()
    return figure
