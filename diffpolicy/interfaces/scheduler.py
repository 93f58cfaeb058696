"""`DDIMScheduler`: the scheduler object of Hugging Face diffusers, over our own step table.

Constructor, methods, defaults and scheduler_config.json are the same, and so are the numbers, with
one exception: a step leads to the next point of the grid. diffusers computes t - T // S, which is
not on the grid for "linspace", or for "trailing" if S does not divide T.
`prev_timestep="formula"` gives diffusers' number.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy.files import write_text
from diffpolicy.sampling import grids, noise, parameterisation, steps
from diffpolicy.sampling.ddim import NO_SIGNAL, ddim_row, sigma
from diffpolicy.sampling.wrappers import dynamic_threshold

CONFIG_NAME = "scheduler_config.json"
CHOICES = {
    "beta_schedule": {
        "linear": noise.linear_betas,
        "scaled_linear": noise.scaled_linear_betas,
        "squaredcos_cap_v2": noise.squaredcos_betas,
    },
    "prediction_type": {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"},
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "prev_timestep": ("grid", "formula"),
}
OURS = "prev_timestep"  # the one argument that diffusers does not have


class Record(dict):
    """A dictionary whose items are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no {name!r} among {', '.join(self)}") from None


class DDIMSchedulerOutput(Record):
    """prev_sample x_s and pred_original_sample x̂0, by name or by number."""

    def __getitem__(self, key: str | int) -> Tensor:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


@dataclass(eq=False)
class DDIMScheduler:
    """A drop-in for diffusers' `DDIMScheduler`.

    prev_timestep: "grid" steps to the next point of the grid, "formula" to t - T // S. Timesteps
    off the grid follow the formula. Raises ValueError on unsupported values.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: Any = None
    clip_sample: bool = True
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    prediction_type: str = "epsilon"
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    clip_sample_range: float = 1.0
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    rescale_betas_zero_snr: bool = False
    prev_timestep: str = "grid"

    _given = frozenset[str]()

    def __new__(cls, *arguments, **named):
        """Note the given arguments: configurations tell defaults apart from choices."""
        scheduler = super().__new__(cls)
        positional = (f.name for f, _ in zip(fields(cls), arguments, strict=False))
        scheduler._given = frozenset([*positional, *named])
        return scheduler

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}"
                )
        if self.trained_betas is not None:
            self.trained_betas = np.asarray(self.trained_betas, np.float64).tolist()
        betas = self._betas()
        self._table = noise.alpha_bar_of(betas)
        if self.rescale_betas_zero_snr:
            self._table = noise.zero_terminal_snr(self._table)
            betas = noise.betas_of(self._table)
        bounded = self.clip_sample and not self.thresholding
        self._clip = self.clip_sample_range if bounded else None
        if self._table[-1] == 0 and self.prediction_type == "epsilon" and not bounded:
            raise ValueError(NO_SIGNAL)
        self._final = 1.0 if self.set_alpha_to_one else float(self._table[0])
        # For callers; steps are computed from the float64 table.
        self.alphas_cumprod = torch.tensor(self._table, dtype=torch.float32)
        self.betas = torch.tensor(betas, dtype=torch.float32)
        self.alphas = 1 - self.betas
        self.final_alpha_cumprod = torch.tensor(self._final)
        self.init_noise_sigma, self.order = 1.0, 1
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(self.num_train_timesteps).flip(0)
        self._next: dict[int, int] = {}

    def _betas(self) -> np.ndarray:
        if self.trained_betas is not None:
            return np.array(self.trained_betas)
        make = CHOICES["beta_schedule"][self.beta_schedule]
        return make(self.num_train_timesteps, self.beta_start, self.beta_end)

    def __len__(self) -> int:
        return self.num_train_timesteps

    # Sampling

    def scale_model_input(self, sample: Tensor, timestep: int | None = None) -> Tensor:
        """The sample [B, …], unchanged."""
        return sample

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the grid of S steps; `timesteps` [S] holds it."""
        T = self.num_train_timesteps
        if not 1 <= num_inference_steps <= T:
            raise ValueError(
                f"num_inference_steps must lie between 1 and num_train_timesteps = {T}; "
                f"got {num_inference_steps}"
            )
        times = grids.SPACINGS[self.timestep_spacing](T, num_inference_steps)
        if self.timestep_spacing == "leading":
            times = [t + self.steps_offset for t in times]
        if not 0 <= times[-1] <= times[0] < T:
            raise ValueError(
                f"with steps_offset {self.steps_offset} timesteps reach {times[0]}, beyond the "
                f"chain's last, {T - 1}; take fewer steps or no offset"
            )
        self.num_inference_steps = num_inference_steps
        self.timesteps = torch.tensor(times, device=device)
        self._next = dict(grids.pairs(times))

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """One step of eq. 12 from x_t = sample [B, …]: (x_s, x̂0).

        use_clipped_model_output derives ε̂ again from the clipped x̂0. The noise that η > 0 injects
        is variance_noise [B, …], or drawn from the generator.
        """
        if generator is not None and variance_noise is not None and eta > 0:
            raise ValueError("give generator or variance_noise, not both")
        t = int(timestep)
        levels = self._level(t), self._level(self._previous(t))
        row = ddim_row(
            *levels,
            t,
            prediction=CHOICES["prediction_type"][self.prediction_type],
            clip=self._clip,
            rederive=use_clipped_model_output,
            eta=eta,
        )
        x0 = steps.read(sample, model_output, row)
        if self.thresholding:
            x0 = dynamic_threshold(x0, self.dynamic_thresholding_ratio, self.sample_max_value)
        if eta > 0 and variance_noise is None:
            variance_noise = _randn_like(model_output, generator)
        moved = steps.move(sample, model_output, x0, row, z=variance_noise)
        if not return_dict:
            return moved, x0
        return DDIMSchedulerOutput(prev_sample=moved, pred_original_sample=x0)

    def _previous(self, t: int) -> int:
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step: the number of steps is not known")
        formula = t - self.num_train_timesteps // self.num_inference_steps
        return formula if self.prev_timestep == "formula" else self._next.get(t, formula)

    def _level(self, t: int) -> noise.Level:
        ᾱ = float(self._table[t]) if t >= 0 else self._final
        if not 0 <= ᾱ <= 1:
            raise ValueError(f"ᾱ at timestep {t} is {ᾱ:.3g}: every β must lie between 0 and 1")
        return noise.level_of(ᾱ)

    def _get_variance(self, timestep: int, prev_timestep: int) -> Tensor:
        """σ² at η = 1 (eq. 16)."""
        σ = sigma(self._level(timestep), self._level(prev_timestep), eta=1.0)
        return torch.tensor(σ**2)

    # Training

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of x0 [B, …] and ε [B, …] at timesteps [B]."""
        level = self._levels(timesteps, original_samples)
        return parameterisation.add_noise(original_samples, noise, *level).to(
            original_samples.dtype
        )

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v of x0 [B, …] and ε [B, …] at timesteps [B]."""
        level = self._levels(timesteps, sample)
        return parameterisation.target(sample, noise, *level, "v").to(sample.dtype)

    def _levels(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ and √(1-ᾱ), each [B, 1, …], float64."""
        ᾱ = torch.as_tensor(self._table, device=like.device)[timesteps.to(like.device)]
        ᾱ = ᾱ.view(-1, *[1] * (like.ndim - 1))
        return ᾱ.sqrt(), (1 - ᾱ).sqrt()

    # Configuration

    @property
    def config(self) -> Record:
        """The constructor's arguments by attribute and by item, with the names of the defaults."""
        values = asdict(self)
        defaults = [name for name in values if name not in self._given and name != OURS]
        return Record(values, _use_default_values=defaults) if defaults else Record(values)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> "DDIMScheduler":
        """From a configuration of this class or of diffusers; its defaults become ours."""
        defaults, names = config.get("_use_default_values", ()), {f.name for f in fields(cls)}
        given = {k: v for k, v in config.items() if k not in defaults and not k.startswith("_")}
        if unknown := given.keys() - names:
            warnings.warn(f"{cls.__name__} has no use for {sorted(unknown)}", stacklevel=2)
        return cls(**{k: v for k, v in {**given, **changes}.items() if k in names})

    @classmethod
    def load_config(cls, folder: str | Path, subfolder: str = "") -> dict[str, Any]:
        """The configuration in a local folder's scheduler_config.json; OSError if there is none."""
        path = Path(folder, subfolder, CONFIG_NAME)
        if not path.is_file():
            raise OSError(f"there is no {CONFIG_NAME} in {path.parent}; expected a local folder")
        return json.loads(path.read_text())

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, subfolder: str = "", **changes: Any
    ) -> "DDIMScheduler":
        """The scheduler of a local folder's scheduler_config.json, with `changes`."""
        return cls.from_config(cls.load_config(folder, subfolder), **changes)

    def save_config(self, folder: str | Path) -> None:
        """Write scheduler_config.json in diffusers' format."""
        saved = {"_class_name": type(self).__name__, **asdict(self)}
        if self.prev_timestep == "grid":
            del saved[OURS]
        write_text(Path(folder) / CONFIG_NAME, json.dumps(saved, indent=2, sort_keys=True) + "\n")

    save_pretrained = save_config


def _randn_like(x: Tensor, generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """Standard normal noise of the shape of x [B, …], with one generator or one for each sample.

    It is drawn on the generator's device, so a CPU generator gives the same noise everywhere.
    """
    if isinstance(generator, list):
        pairs = zip(x.split(1), generator, strict=True)
        return torch.cat([_randn_like(sample, each) for sample, each in pairs])
    device = generator.device if generator else x.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
