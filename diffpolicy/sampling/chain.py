"""A step budget worked out for one model: its grid, its step table, its name and its summary."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling import grids
from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.dpm import dpm_solver
from diffpolicy.sampling.heun import heun
from diffpolicy.sampling.midpoint import midpoint
from diffpolicy.sampling.noise import Level, make_levels
from diffpolicy.sampling.steps import Row
from diffpolicy.sampling.unipc import unipc
from diffpolicy.specification import Specification

SAMPLERS = {
    "ddim": ddim,
    "dpm++": dpm_solver,
    "unipc": unipc,
    "heun": heun,
    "midpoint": midpoint,
}
USUAL_GRID = "trailing"
WITHOUT_NOISE = {"regression": 0, "mip": 2}  # steps of the objectives that start from zero
NAMES = {"regression": "regression", "mip": "MIP"}  # of budgets, by objective
SHOWN = 12  # timesteps that an audit line prints


@dataclass(frozen=True)
class Chain:
    """All that an engine needs besides the network and the noise.

    grid: (t, s) of each step of the solver. start_signal: a = √ᾱ at the first timestep.
    objective: that of training; regression and mip start from zero. ddpm: ancestral sampling over
    all T timesteps.
    own_grid: name of the run's grid. rederive: ε̂ is read from x̂0 wherever that is clipped.
    """

    sampling: Sampling
    grid: grids.Grid
    rows: list[Row]
    start_signal: float
    objective: str = "denoising"
    ddpm: bool = False
    own_grid: str = USUAL_GRID
    rederive: bool = True

    @property
    def regression(self) -> bool:
        """True if the network is evaluated once, without denoising."""
        return self.objective == "regression"

    @property
    def start_scale(self) -> float:
        """κ, the factor on the noise that sampling starts from."""
        return 0.0 if self.objective in WITHOUT_NOISE else self.sampling.start_scale

    @property
    def noiseless(self) -> bool:
        """True if the chunk depends on no noise."""
        return self.start_scale == 0 and not any(row.z for row in self.rows)

    @property
    def steps(self) -> int:
        """K, the steps of the solver; 0 for regression."""
        return 0 if self.regression else len(self.grid)

    @property
    def name(self) -> str:
        """The name in tables: "10 steps", "10 steps, leading, η 0.5", "DDPM 100", "regression"."""
        if self.ddpm:
            return f"DDPM {self.steps}"
        steps = f"{self.steps} step{'s' * (self.steps > 1)}"
        return ", ".join(filter(None, [NAMES.get(self.objective, steps), self.variant]))

    @property
    def kind(self) -> str:
        """The name of its line in a plot: "DDPM", "regression", or the variant."""
        if self.ddpm:
            return "DDPM"
        return NAMES.get(self.objective, self.variant)

    @property
    def variant(self) -> str:
        """Differences from the default sampler except the number of steps, or ""."""
        s, usual = self.sampling, Sampling()
        parts = {
            s.sampler: s.sampler != usual.sampler,
            f"grid {s.grid}": s.grid != self.own_grid,
            f"start {s.start}": s.start is not None,
            f"end {s.end}": s.end != usual.end,
            f"η {s.eta:g}": s.eta != usual.eta,
            f"noise × {s.noise_scale:g}": s.noise_scale != usual.noise_scale,
            f"start × {s.start_scale:g}": s.start_scale != usual.start_scale,
            f"clip {s.clip}": s.clip is not None,
            s.late: s.late != usual.late,
        }
        return ", ".join(text for text, differs in parts.items() if differs)


def make_chain(
    model: ModelConfig,
    clip_range: float | None,
    sampling: Sampling,
    own_grid: str = USUAL_GRID,
    rederive: bool = True,
    schedules: Sequence[Sequence[int]] = (),
) -> Chain:
    """The chain of a model under `sampling`; the rest as in its `Specification`.

    Ancestral sampling over all timesteps always re-derives ε̂ from the clipped x̂0 (Ho et al., arXiv
    2006.11239, eq. 7). Raises DiffpolicyError if the budget, its grid or η do not fit the model.
    """
    if sampling.noise_scale != 1 and not sampling.eta:
        raise DiffpolicyError("a noise scale needs --eta above 0: DDIM injects no noise")
    if sampling.sampler not in SAMPLERS:
        names = ", ".join(SAMPLERS)
        raise DiffpolicyError(f"{sampling.sampler!r} is not a sampler; expected one of: {names}")
    timesteps, usual = model.train_timesteps, Sampling(grid=own_grid)
    sampling = replace(sampling, grid=sampling.grid or own_grid)
    ddpm = sampling == replace(usual, ddim_steps=timesteps, eta=1.0)
    levels = make_levels(model.schedule, timesteps)
    times = [timesteps - 1, model.mip_timestep] if model.objective == "mip" else [timesteps - 1]
    if model.objective in WITHOUT_NOISE:
        _refuse_options(model, sampling, usual)
        grid, clip = grids.listed_grid(timesteps, times), clip_range
    else:
        grid = _grid(levels, sampling, schedules, clip_range)
        clip = clip_range if sampling.clip is None else sampling.clip or None
    rows = SAMPLERS[sampling.sampler](
        levels,
        grid,
        prediction=reading(model),
        clip=clip,
        rederive=clip is not None and (rederive or ddpm),
        eta=sampling.eta,
        noise_scale=sampling.noise_scale,
    )
    start = levels[grid[0][0]].signal
    reads_clipped = clip is None or rederive or ddpm
    return Chain(
        sampling, grid, rows, start, model.objective, ddpm, own_grid, rederive=reads_clipped
    )


def reading(model: ModelConfig) -> str:
    """The prediction that the network's output is read as."""
    return "x0" if model.objective in WITHOUT_NOISE else model.prediction


def own_budgets(specification: Specification) -> tuple[int, ...] | None:
    """The only budgets of a run: 0 for regression, 2 for MIP, 1 and 2 if distilled; None for any.

    They are `ddim_steps` on the grid of the run, and ancestral sampling is not among them.
    """
    objective = specification.model.objective
    if objective in WITHOUT_NOISE:
        return (WITHOUT_NOISE[objective],)
    if objective == "distilled":
        return tuple(sorted(len(times) for times in specification.schedules))
    return None


def _grid(
    levels: Sequence[Level],
    sampling: Sampling,
    schedules: Sequence[Sequence[int]],
    clip_range: float | None,
) -> grids.Grid:
    """The grid of the options; an optimised one by its number of steps, by default the largest."""
    if sampling.grid != grids.OPTIMISED:
        ends = sampling.start, sampling.end
        return grids.parse_grid(levels, str(sampling.grid), sampling.ddim_steps, *ends)
    if sampling.start is not None or sampling.end:
        raise DiffpolicyError("the grid optimised has its own ends; leave out --start and --end")
    if sampling.eta or (sampling.clip is not None and sampling.clip != (clip_range or 0)):
        raise DiffpolicyError(
            "the grid optimised was chosen with η = 0 and the clip of the run; leave out --eta and "
            f"--clip, or choose another --grid; got η {sampling.eta:g}, clip {sampling.clip}"
        )
    by_steps = {len(times): times for times in schedules}
    if not by_steps:
        raise DiffpolicyError(
            "the run has no optimised grids; make them with diffpolicy optimise, or choose another "
            "--grid"
        )
    wanted = max(by_steps) if sampling.ddim_steps is None else sampling.ddim_steps
    if wanted not in by_steps:
        held = ", ".join(map(str, sorted(by_steps)))
        raise DiffpolicyError(
            f"the run has optimised grids for {held} steps; got --ddim-steps {wanted}"
        )
    return grids.listed_grid(len(levels), by_steps[wanted])


def _refuse_options(model: ModelConfig, sampling: Sampling, usual: Sampling) -> None:
    """Raise DiffpolicyError if a policy without noise is given the options of a sampler."""
    steps = WITHOUT_NOISE[model.objective]
    usual = replace(usual, late=sampling.late)
    if sampling not in (usual, replace(usual, ddim_steps=steps)):
        given = {k: v for k, v in asdict(sampling).items() if v != getattr(usual, k)}
        kind = "regression policy, without denoising steps" if not steps else "MIP policy"
        raise DiffpolicyError(
            f"this is a {kind}; give it --ddim-steps {steps}, or nothing, and no other sampler's "
            f"option; got {given}"
        )


def audit(chain: Chain) -> dict[str, Any]:
    """The timesteps, evaluations, starting signal and injected noise of a chain, for results."""
    return {
        "solver_steps": chain.steps,
        "timesteps": [row.t for row in chain.rows],
        "network_evals": len(chain.rows),
        "sqrt_alpha_bar_start": chain.start_signal,
        "duplicates": grids.duplicates(chain.grid),
        "start_scale": chain.start_scale,
        "noise_injected": sum(row.z > 0 for row in chain.rows),
    }


def audit_line(chain: Chain) -> str:
    """The audit as one line for the terminal."""
    if chain.regression:
        return f"{chain.name}: 1 network evaluation, no denoising"
    found = audit(chain)
    evals, times = found["network_evals"], [str(t) for t in found["timesteps"]]
    solver = f" in {chain.steps} steps of the solver" if evals > chain.steps > 0 else ""
    if len(times) > SHOWN:
        times = [*times[: SHOWN // 2], "…", *times[-SHOWN // 2 :]]
    own = chain.own_grid if chain.sampling.grid == chain.own_grid != USUAL_GRID else ""
    on_grid = f" on the {own} grid of the run," if own and not chain.ddpm else ""
    unclipped = "" if chain.rederive else "; ε̂ as predicted where x̂0 is clipped"
    start = f"√ᾱ at the start {chain.start_signal:.4f}" if chain.start_scale else "from zero"
    return (
        f"{chain.name}: {evals} network evaluation{'s' * (evals > 1)}{solver}{on_grid} at t = "
        f"{' '.join(times)}; {start}; duplicates "
        f"{found['duplicates']}{unclipped}"
    )
