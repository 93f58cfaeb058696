"""Training steps of Diffusion Policy's own code, timed on request; run by `bench_training.py`.

    python diffusion_policy_steps.py STORE NETWORK WORKERS THREADS

reads numbers of steps from standard input and answers each with their time in seconds. The loop is
that of `train_diffusion_unet_lowdim_workspace.py` (commit 5ba07ac) with the settings of its
configuration: PushTLowdimDataset, which reads through SequenceSampler, in a DataLoader;
DiffusionUnetLowdimPolicy with diffusers' DDPMScheduler; AdamW; a step of the learning rate and of
EMAModel for every batch; the loss read, shown and logged at every step. Validation, rollouts,
checkpoints and Weights & Biases are left out. NETWORK is unet (their ConditionalUnet1D, small) or
mlp (the MLP of this project in its place).
"""

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

HORIZON, SEEN, EXECUTED = 16, 2, 8  # T_p, T_o and T_a
OBSERVATION, ACTION = 20, 2
CHANNELS, CONDITION = [64, 128, 256], 256
EPOCHS = 5000
SCHEDULER = {
    "num_train_timesteps": 100,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}


def theirs(module: str, name: str) -> Any:
    """A class or a function of Diffusion Policy."""
    return getattr(importlib.import_module(f"diffusion_policy.{module}"), name)


class MLP(nn.Module):
    """The MLP of this project behind the interface of their UNet."""

    def __init__(self):
        super().__init__()
        from diffpolicy.config import ModelConfig
        from diffpolicy.denoisers import build
        from diffpolicy.specification import Horizons

        horizons = Horizons(SEEN, HORIZON, EXECUTED)
        self.network = build(ModelConfig(), horizons, OBSERVATION, ACTION)

    def forward(self, sample: Tensor, timestep: Tensor, global_cond: Tensor, **_: Any) -> Tensor:
        """[B, T_p, D_a], [B], [B, T_o · D_o] -> [B, T_p, D_a]."""
        return self.network(sample, timestep, global_cond)


def unet() -> nn.Module:
    """Their UNet with the channels of `unet-small`."""
    return theirs("model.diffusion.conditional_unet1d", "ConditionalUnet1D")(
        input_dim=ACTION,
        global_cond_dim=OBSERVATION * SEEN,
        diffusion_step_embed_dim=CONDITION,
        down_dims=CHANNELS,
        kernel_size=5,
        n_groups=8,
        cond_predict_scale=True,
    )


def policy(network: nn.Module) -> Any:
    """Their policy around a network."""
    scheduler: Any = importlib.import_module("diffusers.schedulers.scheduling_ddpm")
    return theirs("policy.diffusion_unet_lowdim_policy", "DiffusionUnetLowdimPolicy")(
        model=network,
        noise_scheduler=scheduler.DDPMScheduler(**SCHEDULER),
        horizon=HORIZON,
        obs_dim=OBSERVATION,
        action_dim=ACTION,
        n_action_steps=EXECUTED,
        n_obs_steps=SEEN,
        obs_as_global_cond=True,
        oa_step_convention=True,
    )


def training(store: Path, network: str, workers: int) -> Iterator[float]:
    """The loss of every step of their loop."""
    dataset = theirs("dataset.pusht_dataset", "PushTLowdimDataset")(
        str(store), horizon=HORIZON, pad_before=SEEN - 1, pad_after=EXECUTED - 1
    )
    loader = DataLoader(dataset, 256, shuffle=True, num_workers=workers, pin_memory=False)
    model, averaged = (policy({"unet": unet, "mlp": MLP}[network]()) for _ in range(2))
    averaged.load_state_dict(model.state_dict())
    for held in (model, averaged):
        held.set_normalizer(dataset.get_normalizer())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, (0.95, 0.999), weight_decay=1e-6)
    schedule = theirs("model.common.lr_scheduler", "get_scheduler")(
        "cosine", optimizer, 500, num_training_steps=len(loader) * EPOCHS
    )
    ema = theirs("model.diffusion.ema_model", "EMAModel")(averaged, power=0.75, max_value=0.9999)
    step = 0
    with theirs("common.json_logger", "JsonLogger")(str(store.with_suffix(".log"))) as log:
        for epoch in range(EPOCHS):
            bar = tqdm(loader, desc=f"Training epoch {epoch}", leave=False, mininterval=1.0)
            for batch in bar:
                loss = model.compute_loss({name: x.to("cpu") for name, x in batch.items()})
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                ema.step(model)
                value = loss.item()
                bar.set_postfix(loss=value, refresh=False)
                rate = schedule.get_last_lr()[0]
                log.log({"train_loss": value, "global_step": step, "epoch": epoch, "lr": rate})
                step += 1
                yield value


def main() -> None:
    """Answer the requests of standard input."""
    store, network, workers, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(42)
    with redirect_stdout(sys.stderr):  # the answers alone are for standard output
        losses = training(Path(store), network, int(workers))
    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in islice(losses, int(line)):
            pass
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
