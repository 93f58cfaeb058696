"""`diffpolicy export-policy`: a run as one ONNX file, with its contract, for ONNX Runtime alone.

The file takes observations and gives actions in the units of the robot: normalisation, encoder and
the whole sampling loop are inside. Shapes: T_o observations seen, T_p actions predicted, T_a
executed, m = T_p - T_o + 1, D_a action dimensions.
"""

import hashlib
import json
import logging
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffpolicy.checkpoint import policy_path
from diffpolicy.config import Sampling
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.denoisers.committed import COMMITTED
from diffpolicy.engines.auto import CHECKED, TOLERANCE, WHOLE, rounding_error
from diffpolicy.engines.encoding import exported_encoder
from diffpolicy.engines.onnx_graph import (
    Graph,
    add_chain,
    check_installed,
    open_session,
    rename_constants,
)
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_atomically, write_text
from diffpolicy.policies.config import ExportPolicyConfig
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit, audit_line
from diffpolicy.version import __version__

NOISE, ACTIONS = "noise", "actions"
FORMAT_VERSION = 1  # of the contract
LOGGER = logging.getLogger("diffpolicy")
COMMITTED_ORDER = (
    "actions from that of the newest observation on that will be executed before the chunk "
    "arrives, in the units of actions; the last column is 1 where one is given, and all else is 0"
)
EXAMPLE = """\
import json
import numpy as np
import onnxruntime
contract = json.load(open({contract!r}, encoding="utf-8"))
session = onnxruntime.InferenceSession({model!r}, providers=["CPUExecutionProvider"])
inputs = {{k: np.zeros(s["shape"], s["dtype"]) for k, s in contract["observations"].items()}}
{noise}[actions] = session.run(["actions"], inputs)  # [1, T_p - T_o + 1, D_a]
for action in actions[0, : contract["horizons"]["action"]]:  # one every control_dt_s seconds
    print(action)"""
DRAW = """\
inputs["noise"] = np.random.default_rng(0).standard_normal(contract["noise"]["shape"], np.float32)
"""


def export_policy(config: ExportPolicyConfig) -> None:
    """Write the ONNX file and its contract; print a program that runs it.

    The file is compared with eager before it gets its name. Raises DiffpolicyError for a run or a
    budget that is not usable, EngineUnavailable without ONNX.
    """
    check_installed()
    contract_path = config.out.with_suffix(".json")
    if contract_path == config.out:
        raise DiffpolicyError(f"{config.out} is the name of the contract; try --out policy.onnx")
    for path in (config.out, contract_path):
        check_writable(path)
    policy = Policy.load(config.run, **_sampling(config))
    content = whole_policy(policy).SerializeToString()
    found: dict[str, float] = {}

    def write(path: Path) -> None:
        path.write_bytes(content)
        found.update(compare(path, policy))

    write_atomically(config.out, write)
    facts = contract(policy) | {
        "file": config.out.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "run_sha256": hashlib.sha256(policy_path(config.run).read_bytes()).hexdigest(),
        "difference_from_eager": found,
    }
    write_text(contract_path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    LOGGER.info("%s: %s; %.1f MB", config.out, audit_line(policy.chain), len(content) / 1e6)
    LOGGER.info(
        "largest difference from eager on %d random inputs: %.2g normalised, %.2g in the units of "
        "the actions; contract in %s; to run it:\n\n%s",
        *(CHECKED, found["normalised"], found["in_units"], contract_path),
        example(config.out, policy.chain.noiseless),
    )


def _sampling(config: ExportPolicyConfig) -> dict[str, Any]:
    """The options that are those of `Sampling`, as far as they are given."""
    names = {field.name for field in fields(Sampling)}
    return {k: v for k, v in vars(config).items() if k in names and v is not None}


def example(path: Path, noiseless: bool) -> str:
    """A program that runs the file with onnxruntime and numpy alone, on observations of zeros.

    A history begins with the oldest of its T_o observations.
    """
    contract = str(path.with_suffix(".json"))
    return EXAMPLE.format(model=str(path), contract=contract, noise="" if noiseless else DRAW)


def whole_policy(policy: Policy) -> Any:
    """The ONNX model: {key: [1, T_o, …]} and noise to actions [1, m, D_a], in the robot's units.

    A policy that starts from zero (regression, MIP) has no input for noise.
    """
    job, g = policy.job(), Graph()
    inputs: dict[str, Any] = {
        key: (values.numpy().dtype, values.shape) for key, values in job.no_observation().items()
    }
    if taken := {NOISE, ACTIONS} & inputs.keys():
        raise DiffpolicyError(
            f"an observation cannot be named {' or '.join(taken)} in an ONNX file; train with "
            "another name"
        )
    encoder, names = exported_encoder(job)
    rename_constants(encoder, "encode/")
    given = {name: _normalised(g, key, policy) for key, name in names.items()}
    encoded = g.insert(encoder, **given)
    if policy.chain.noiseless:
        noise = g.constant(np.zeros(job.noise_shape, np.float32))
    else:
        noise, inputs[NOISE] = NOISE, (np.dtype(np.float32), job.noise_shape)
    examples = torch.zeros(job.observation_shape), torch.zeros(job.noise_shape)
    chunk = add_chain(g, job.denoiser, policy.chain, *examples, (encoded, noise))
    usable = g.node("Slice", chunk, *(g.constant([n]) for n in _usable(policy)))
    actions = _unnormalised(g, usable, policy.action_normalizer)
    return g.model(inputs, ACTIONS, actions, (1, policy.horizons.usable, job.action_dim))


def _usable(policy: Policy) -> tuple[int, int, int]:
    """Start, end and axis of the actions from the newest observation on."""
    return policy.horizons.observation - 1, policy.horizons.prediction, 1


def _normalised(g: Graph, key: str, policy: Policy) -> str:
    """`Normalizer.normalize` of a vector as nodes; the encoder normalises pictures."""
    if key == COMMITTED:
        return _normalised_actions(g, key, policy.action_normalizer)
    normalizer = policy.observation_normalizers.get(key)
    if normalizer is None or policy.observations[key].is_picture:
        return key
    scaled = g.node("Mul", key, g.constant(normalizer.scale))
    return g.node("Add", scaled, g.constant(normalizer.offset))


def _normalised_actions(g: Graph, key: str, normalizer: Normalizer) -> str:
    """Committed actions [1, D, D_a + 1] normalised, and zero where the last column is."""
    scale, offset = np.append(normalizer.scale, 1), np.append(normalizer.offset, 0)
    scaled = g.node("Mul", key, g.constant(scale.astype(np.float32)))
    moved = g.node("Add", scaled, g.constant(offset.astype(np.float32)))
    last = [len(scale) - 1], [len(scale)], [2]
    return g.node("Mul", moved, g.node("Slice", key, *(g.constant(n) for n in last)))


def _unnormalised(g: Graph, x: str, normalizer: Normalizer) -> str:
    """`Normalizer.unnormalize` as nodes."""
    varies = normalizer.scale != 0
    divisor = np.where(varies, normalizer.scale, np.float32(1))
    found = g.node("Div", g.node("Sub", x, g.constant(normalizer.offset)), g.constant(divisor))
    if normalizer.constant is None:
        return found
    constant = np.where(varies, np.float32(0), normalizer.constant)
    return g.node("Where", g.constant(varies), found, g.constant(constant))


def compare(path: Path, policy: Policy) -> dict[str, float]:
    """The largest difference of a file from eager, on random inputs, normalised and in units.

    Raises DiffpolicyError beyond the tolerance of engines (`auto.verify`) in normalised actions.
    """
    session, worst, in_units = open_session(path.read_bytes(), 1), 0.0, 0.0
    for seed in range(CHECKED):
        observation, noise = _random_inputs(policy, seed)
        nothing = {key: zeros.numpy() for key, zeros in policy.job().no_committed().items()}
        inputs = observation | nothing
        if not policy.chain.noiseless:
            inputs[NOISE] = noise
        [actions] = session.run([ACTIONS], inputs)
        off = np.abs(actions - policy(observation, noise))
        off = np.where(np.isfinite(actions), off, np.inf)
        scale = policy.action_normalizer.scale
        worst = max(worst, float((off * np.where(scale, np.abs(scale), 1)).max()))
        in_units = max(in_units, float(off.max()))
    if worst > TOLERANCE["float32"] and worst > (allowed := _allowed(policy)):
        raise DiffpolicyError(
            f"the ONNX file differs from eager by {worst:.2g} in normalised actions, more than "
            f"{allowed:.2g}; it was not written"
        )
    return {"normalised": worst, "in_units": in_units}


def _random_inputs(policy: Policy, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Observations {key: [1, T_o, …]} in the robot's units and noise."""
    histories, noise = WHOLE.inputs(policy.job(), seed)
    normalizers = policy.observation_normalizers
    observation = {
        key: values.numpy()
        if policy.observations[key].is_picture or key not in normalizers
        else normalizers[key].unnormalize(values.numpy())
        for key, values in histories.items()
        if key != COMMITTED
    }
    return observation, noise.numpy()


def _allowed(policy: Policy) -> float:
    """Ten times the rounding error of the chain in float32."""
    job = policy.job()
    eager, exact = (
        WHOLE.build("eager", replace(job, precision=precision))
        for precision in ("float32", "float64")
    )
    drawn = [WHOLE.inputs(job, seed) for seed in range(CHECKED)]
    return 10 * max(rounding_error(exact, inputs, eager(*inputs)) for inputs in drawn)


def contract(policy: Policy) -> dict[str, Any]:
    """Everything that a program needs to know to run the file; times are in seconds."""
    job, task = policy.job(), policy.task
    observations = {
        key: {"shape": list(values.shape), "dtype": str(values.numpy().dtype)}
        for key, values in job.no_observation().items()
    }
    noise = {"shape": list(job.noise_shape), "dtype": "float32", "drawn_from": "standard normal"}
    packages = ("torch", "onnx", "onnxruntime", "numpy")
    return {
        "format_version": FORMAT_VERSION,
        "observations": observations,
        COMMITTED: COMMITTED_ORDER if COMMITTED in observations else None,
        NOISE: None if policy.chain.noiseless else noise,
        ACTIONS: {"shape": [1, policy.horizons.usable, task.action_dim], "dtype": "float32"},
        "order": "observations from the oldest to the newest; actions from that of the newest on",
        "horizons": asdict(policy.horizons),
        "control_dt_s": task.control_dt_s,
        "position_targets": task.position_targets,
        "env_id": task.env_id,
        "env_kwargs": task.env_kwargs,
        "sampling": {**asdict(policy.sampling), "name": policy.chain.name, **audit(policy.chain)},
        "versions": {"diffpolicy": __version__, **{name: version(name) for name in packages}},
    }
