"""`DDIMScheduler`: the scheduler object of Hugging Face diffusers, over our own tables and steps.

The same constructor, methods, defaults and scheduler_config.json, so the same numbers, but for the
level that a step leads to. Here it is the next point of the grid; diffusers computes t - T // S,
which is no point of it for "linspace", nor for "trailing" where S does not divide T.
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
from diffpolicy.sampling import ddim as sampler
from diffpolicy.sampling import grids, noise

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
    that are no points of the grid follow the formula. Raises ValueError on unsupported values.
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
        """Remembers what was given: configurations tell defaults apart from choices."""
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
        if self._table[-1] == 0 and self.prediction_type == "epsilon" and not bounded:
            raise ValueError(sampler.NO_SIGNAL)
        self._final = 1.0 if self.set_alpha_to_one else float(self._table[0])
        # What others read from a scheduler; steps are computed from the float64 table.
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
        """The sample as it is."""
        return sample

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Chooses the grid of S steps; `timesteps` [S] holds it."""
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
        step = sampler.make_step(*levels, t, eta)
        x0, ε = sampler.read(sample, model_output, step, self._reading(use_clipped_model_output))
        if eta > 0 and variance_noise is None:
            variance_noise = _randn_like(model_output, generator)
        moved = sampler.move(x0, ε, step, variance_noise)
        if not return_dict:
            return moved, x0
        return DDIMSchedulerOutput(prev_sample=moved, pred_original_sample=x0)

    def _previous(self, t: int) -> int:
        if self.num_inference_steps is None:
            raise ValueError("call set_timesteps before step: the number of steps is not known")
        formula = t - self.num_train_timesteps // self.num_inference_steps
        return formula if self.prev_timestep == "formula" else self._next.get(t, formula)

    def _level(self, t: int) -> float:
        ᾱ = float(self._table[t]) if t >= 0 else self._final
        if not 0 <= ᾱ <= 1:
            raise ValueError(f"ᾱ at timestep {t} is {ᾱ:.3g}: every β must lie between 0 and 1")
        return ᾱ

    def _reading(self, rederive: bool) -> sampler.Reading:
        threshold = (self.dynamic_thresholding_ratio, self.sample_max_value)
        return sampler.Reading(
            prediction=CHOICES["prediction_type"][self.prediction_type],
            clip=self.clip_sample_range if self.clip_sample else None,
            threshold=threshold if self.thresholding else None,
            rederive=rederive,
        )

    def _get_variance(self, timestep: int, prev_timestep: int) -> Tensor:
        """σ² at η = 1 (eq. 16)."""
        σ = sampler.sigma(self._level(timestep), self._level(prev_timestep), eta=1.0)
        return torch.tensor(σ**2)

    # Training

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of x0 [B, …] and ε [B, …] at timesteps [B]."""
        level = self._levels(timesteps, original_samples)
        return sampler.add_noise(original_samples, noise, level).to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """v of x0 [B, …] and ε [B, …] at timesteps [B]."""
        level = self._levels(timesteps, sample)
        return sampler.training_target(sample, noise, level, "v").to(sample.dtype)

    def _levels(self, timesteps: Tensor, like: Tensor) -> Tensor:
        """ᾱ [B, 1, …], float64."""
        level = torch.as_tensor(self._table, device=like.device)[timesteps.to(like.device)]
        return level.view(-1, *[1] * (like.ndim - 1))

    # Configuration

    @property
    def config(self) -> Record:
        """The constructor's arguments by attribute and by item, and which of them were defaults."""
        values = asdict(self)
        defaults = [name for name in values if name not in self._given and name != OURS]
        return Record(values, _use_default_values=defaults) if defaults else Record(values)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> "DDIMScheduler":
        """From a configuration, diffusers' too; what it left to defaults takes ours."""
        defaults, names = config.get("_use_default_values", ()), {f.name for f in fields(cls)}
        given = {k: v for k, v in config.items() if k not in defaults and not k.startswith("_")}
        if unknown := given.keys() - names:
            warnings.warn(f"{cls.__name__} has no use for {sorted(unknown)}", stacklevel=2)
        return cls(**{k: v for k, v in {**given, **changes}.items() if k in names})

    @classmethod
    def load_config(cls, folder: str | Path, subfolder: str = "") -> dict[str, Any]:
        """The configuration in a local folder's scheduler_config.json."""
        path = Path(folder, subfolder, CONFIG_NAME)
        if not path.is_file():
            raise OSError(
                f"there is no {CONFIG_NAME} in {path.parent}; only local folders are read"
            )
        return json.loads(path.read_text())

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, subfolder: str = "", **changes: Any
    ) -> "DDIMScheduler":
        """The scheduler that a local folder describes."""
        return cls.from_config(cls.load_config(folder, subfolder), **changes)

    def save_config(self, folder: str | Path) -> None:
        """Writes scheduler_config.json, as diffusers reads it."""
        saved = {"_class_name": type(self).__name__, **asdict(self)}
        if self.prev_timestep == "grid":
            del saved[OURS]
        write_text(Path(folder) / CONFIG_NAME, json.dumps(saved, indent=2, sort_keys=True) + "\n")

    save_pretrained = save_config


def _randn_like(x: Tensor, generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """On the generator's device, so that a CPU generator gives the same noise everywhere.

    A list has one generator for each sample of the batch.
    """
    if isinstance(generator, list):
        pairs = zip(x.split(1), generator, strict=True)
        return torch.cat([_randn_like(sample, each) for sample, each in pairs])
    device = generator.device if generator else x.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
