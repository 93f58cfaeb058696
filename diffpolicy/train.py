"""The training loop: a denoiser on windows of demonstrations, with EMA, resume and validation.

Every draw of step n depends on (seed, n) alone, so a resumed run repeats an uninterrupted one
without any generator's state in the checkpoint.
"""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffpolicy import checkpoint as checkpoints
from diffpolicy import noise as levels
from diffpolicy import sampler
from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import TrainConfig
from diffpolicy.denoisers import build
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_text
from diffpolicy.policy import choose_device
from diffpolicy.preparation import Prepared, prepare
from diffpolicy.windows import Windows

DEFAULT_STEPS = 20_000
WARMUP_STEPS = 500
EMA_POWER, EMA_LIMIT = 0.75, 0.9999
LOG_EVERY, VALIDATE_EVERY, SAVE_EVERY_S = 100, 1000, 30.0
VALIDATION_WINDOWS = 1024


@dataclass
class Run:
    """The state that training changes."""

    network: nn.Module
    ema: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    elapsed_s: float = 0.0


def train(config: TrainConfig) -> Path:
    """Trains until --steps, --minutes or Ctrl-C; returns the policy's path.

    Raises DiffpolicyError on bad input, before anything is written.
    """
    config = _checked(config)
    device = torch.device(choose_device(config.device))
    torch.set_num_threads(config.threads or torch.get_num_threads())
    prepared = prepare(config)
    run = _start(config, prepared, device)
    config.out.mkdir(parents=True, exist_ok=True)
    stopped = _loop(config, prepared, run, device)
    _save(config, prepared, run)
    if stopped:
        print(f"stopped at step {run.step}; the checkpoint is usable, --resume goes on")
        raise KeyboardInterrupt
    return checkpoints.policy_path(config.out)


def _checked(config: TrainConfig) -> TrainConfig:
    if config.steps is not None and config.minutes is not None:
        raise DiffpolicyError("give --steps or --minutes, not both")
    if config.steps is None and config.minutes is None:
        config = replace(config, steps=DEFAULT_STEPS)
    if (config.steps or config.minutes or 0) <= 0 or config.batch < 1:
        raise DiffpolicyError("--steps, --minutes and --batch must be positive")
    if config.train_timesteps < 1:
        raise DiffpolicyError("--train-timesteps must be positive")
    if not 0 <= config.validation_fraction < 1:
        raise DiffpolicyError("--validation-fraction must lie in [0, 1)")
    written = (config.out / checkpoints.TRAINING_FILE).exists()
    if written and not config.resume:
        raise DiffpolicyError(
            f"{config.out} already holds a run; go on with it by --resume, or choose another --out"
        )
    return config


def _start(config: TrainConfig, prepared: Prepared, device: torch.device) -> Run:
    """Fresh weights, or those of the run in --out."""
    spec = prepared.specification
    torch.manual_seed(config.seed)
    network = build(spec.model, spec.horizons, spec.task.observation_dim, spec.task.action_dim)
    network.to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    ema = {name: p.detach().clone() for name, p in network.named_parameters()}
    run = Run(network, ema, optimizer)
    path = config.out / checkpoints.TRAINING_FILE
    if config.resume and path.exists():
        _restore(run, prepared, path)
    return run


def _loop(config: TrainConfig, prepared: Prepared, run: Run, device: torch.device) -> bool:
    """Trains to the end, saving now and then; True where a signal ended it early."""
    windows = prepared.training.to(device) if device.type == "cuda" else prepared.training
    table = levels.alpha_bar_table(config.schedule, config.train_timesteps)
    alpha_bar = sampler.to_tensor_table(table, device)
    log = _Log(config.out, run.step)
    total = torch.zeros((), device=device)
    begin = time.monotonic() - run.elapsed_s
    saved_at = time.monotonic()
    with _stop_on_signal() as stopped, _bar(config, run) as bar:
        while (progress := _progress(config, run)) < 1 and not stopped:
            total += _step(config, prepared, run, windows, alpha_bar, progress)
            run.elapsed_s = time.monotonic() - begin
            bar.update(1)
            if run.step % LOG_EVERY == 0:
                record = {"step": run.step, "loss": float(total) / LOG_EVERY}
                total.zero_()
                _report(config, prepared, run, alpha_bar, record, log, bar)
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                _save(config, prepared, run)
                saved_at = time.monotonic()
        return bool(stopped)


def _report(config, prepared: Prepared, run: Run, alpha_bar: Tensor, record, log, bar) -> None:
    """One log line, with the validation loss now and then."""
    if not math.isfinite(record["loss"]):
        raise DiffpolicyError(
            f"the loss is no longer finite at step {run.step}; the last checkpoint stands. "
            "Lower --lr or look at the data"
        )
    if run.step % VALIDATE_EVERY == 0 and prepared.validation is not None:
        record["validation_loss"] = _validate(config, prepared, run, alpha_bar)
    record["lr"] = run.optimizer.param_groups[0]["lr"]
    log.write({**record, "elapsed_s": round(run.elapsed_s, 3)})
    bar.set_postfix({k: f"{v:.4g}" for k, v in record.items() if k != "step"}, refresh=False)


def _progress(config: TrainConfig, run: Run) -> float:
    if config.steps is not None:
        return run.step / config.steps
    assert config.minutes is not None
    return run.elapsed_s / (60 * config.minutes)


def _learning_rate(peak: float, step: int, progress: float) -> float:
    """Linear warm-up, then a cosine to zero over the whole run."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * (1 + math.cos(math.pi * progress)) / 2


def _generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The draws of one step, from (seed, step) alone."""
    key = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(key >> np.uint64(1)))


def _step(
    config: TrainConfig,
    prepared: Prepared,
    run: Run,
    windows: Windows,
    alpha_bar: Tensor,
    progress: float,
) -> Tensor:
    """One step of AdamW and of the EMA; the loss."""
    for group in run.optimizer.param_groups:
        group["lr"] = _learning_rate(config.lr, run.step, progress)
    generator = _generator(config.seed, run.step, alpha_bar.device)
    loss = _loss(config, prepared, run.network, windows, config.batch, alpha_bar, generator)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    _update_ema(list(run.ema.values()), list(run.network.parameters()), run.step)
    run.step += 1
    return loss.detach()


def _loss(
    config: TrainConfig,
    prepared: Prepared,
    network,
    windows: Windows,
    batch: int,
    alpha_bar: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """‖target - network‖², the mean over one random batch (Ho et al., eq. 14)."""
    device = alpha_bar.device
    index = torch.randint(len(windows), (batch,), generator=generator, device=device)
    t = torch.randint(len(alpha_bar), (batch,), generator=generator, device=device)
    observation, action, real = _gather(windows, index)
    ε = torch.randn(action.shape, generator=generator, device=device)
    level = alpha_bar[t].float()[:, None, None]
    output = network(sampler.add_noise(action, ε, level), t, observation)
    target = sampler.training_target(action, ε, level, config.prediction)
    error = (output - target).square()
    if prepared.specification.task.position_targets:
        return error.mean()
    weight = real[..., None].expand_as(error)
    return (error * weight).sum() / weight.sum()


def _gather(windows: Windows, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """On the CPU NumPy gathers, ten times faster than torch's own indexing."""
    if isinstance(windows.newest, Tensor):
        return windows.gather(index)
    observation, action, real = (torch.from_numpy(x) for x in windows.gather(index.numpy()))
    return observation, action, real


def _update_ema(ema: list[Tensor], parameters: list[nn.Parameter], step: int) -> None:
    """ema ← decay · ema + (1 - decay) · weights, decay = 1 - (1 + n)^-¾ up to 0.9999."""
    decay = min(1 - (1 + step) ** -EMA_POWER, EMA_LIMIT)
    torch._foreach_lerp_(ema, [p.detach() for p in parameters], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


@torch.no_grad()
def _validate(config: TrainConfig, prepared: Prepared, run: Run, alpha_bar: Tensor) -> float:
    """The loss of the EMA weights on held-out episodes, with the same draws every time."""
    windows = prepared.validation
    assert windows is not None
    if alpha_bar.device.type == "cuda":
        windows = windows.to(alpha_bar.device)

    def network(*inputs: Tensor) -> Tensor:
        return torch.func.functional_call(run.network, run.ema, inputs)

    generator = _generator(config.seed, 0, alpha_bar.device)
    batch = min(VALIDATION_WINDOWS, len(windows))
    return float(_loss(config, prepared, network, windows, batch, alpha_bar, generator))


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """Ctrl-C and kill end the loop between two steps; the list says so. A second one is final."""
    received: list[int] = []

    def stop(number: int, frame) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    previous = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _bar(config: TrainConfig, run: Run) -> tqdm:
    return tqdm(total=config.steps, initial=run.step, desc="train", unit="step", smoothing=0.1)


class _Log:
    """log.jsonl, cut back to the step that a resumed run starts from."""

    def __init__(self, out: Path, step: int):
        self.path = out / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_text(self.path, "".join(line + "\n" for line in kept))

    def write(self, record: dict) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _step_of(line: str) -> float:
    """The step of a log line; a line cut short by a crash counts as never written."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def _save(config: TrainConfig, prepared: Prepared, run: Run) -> None:
    """The resumable state first, then the policy; each file is complete by itself."""
    tensors = {f"network.{name}": p for name, p in run.network.named_parameters()}
    tensors |= {f"ema.{name}": p for name, p in run.ema.items()}
    names = [name for name, _ in run.network.named_parameters()]
    for number, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{kind}.{names[number]}": m for kind, m in moments.items()}
    spec = prepared.specification
    progress = {"step": run.step, "elapsed_s": run.elapsed_s, "threads": torch.get_num_threads()}
    header = {**progress, "fingerprint": spec.training["fingerprint"]}
    checkpoints.save_tensors(config.out / checkpoints.TRAINING_FILE, tensors, header)
    spec = replace(spec, training={**spec.training, **progress})
    policy = Checkpoint(spec, run.ema, prepared.observation_normalizer, prepared.action_normalizer)
    checkpoints.save_policy(checkpoints.policy_path(config.out), policy)


def _restore(run: Run, prepared: Prepared, path: Path) -> None:
    tensors, header = checkpoints.load_tensors(path)
    if header["fingerprint"] != prepared.specification.training["fingerprint"]:
        raise DiffpolicyError(f"{path.parent} was trained on other data; choose another --out")
    names = [name for name, _ in run.network.named_parameters()]
    try:
        run.network.load_state_dict({n: tensors[f"network.{n}"] for n in names})
        for name, value in run.ema.items():
            value.copy_(tensors[f"ema.{name}"])
    except (KeyError, RuntimeError) as error:
        raise DiffpolicyError(
            f"{path.parent} holds a network of another shape ({error}); resume with the options "
            "it was started with"
        ) from error
    state = run.optimizer.state_dict()
    kinds = ("step", "exp_avg", "exp_avg_sq")
    state["state"] = {
        i: {kind: tensors[f"adam.{kind}.{n}"] for kind in kinds}
        for i, n in enumerate(names)
        if f"adam.step.{n}" in tensors
    }
    run.optimizer.load_state_dict(state)
    run.step, run.elapsed_s = header["step"], header["elapsed_s"]
