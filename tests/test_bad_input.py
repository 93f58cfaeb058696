"""Bad input gives every command one clear line, exit status 2 and no changed file."""

import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import zarr
from conftest import rewrite
from stores import edit

from diffpolicy.cli import COMMANDS
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import open_demonstrations
from diffpolicy.errors import DiffpolicyError
from diffpolicy.training.actions import check_actions

BALANCE = "diffpolicy.envs:Balance-v0"
PUSHT = "diffpolicy.envs:PushT-v0"
QUICK = "--threads 1 --episodes 2 --max-steps 5 --engine eager"
EVAL = f"eval --run {{run}} {QUICK} --ms-per-step 0"
SWEEP = f"sweep --run {{run}} {QUICK} --ms-per-step 0 --out {{out}}"
LATENCY = "latency --run {run} --threads 1 --seconds 0.01 --engine eager"
DENOISE = "denoise --run {run} --out new.webp"
SIZE = "--device cpu --hidden 32 --blocks 1"
TRAIN = f"train --data {{store}} --out {{out}} {SIZE}"
RECORD = f"record --env {BALANCE} --out {{out}} --episodes 1"


@pytest.fixture
def at(tmp_path, balance_store, tiny_run, monkeypatch):
    """Copies of a store and of a run in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(balance_store, tmp_path / "store")
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "file").write_text("neither store nor run")
    return {"store": "store", "run": "run", "out": "new", "file": "file"}


def words(command, at):
    return [word.format(**at) for word in command.split(" ")]


BAD = [
    # stores
    ("info nowhere", "no demonstrations at nowhere: there is no such file or folder"),
    ("info {file}", "file is not a data set of a known format; expected one of zarr, lerobot"),
    ("info .", ". is neither a data set nor a run folder; it holds run, store: give one of them"),
    (f"train --data nowhere --out {{out}} {SIZE}", "no demonstrations at nowhere"),
    (f"train --data {{run}} --out {{out}} {SIZE}", "run is not a data set of a known format"),
    # numbers
    *((f"{command} --ddim-steps 0", "ddim_steps must lie") for command in (EVAL, SWEEP, LATENCY)),
    *((f"{command} --ddim-steps -1", "got -1") for command in (EVAL, SWEEP, LATENCY)),
    *(
        (f"{command} --ddim-steps 101", "between 1 and the 100")
        for command in (EVAL, SWEEP, LATENCY)
    ),
    *((f"{command} --threads 0", "--threads must be positive") for command in (EVAL, TRAIN)),
    *((f"{command} --seed -1", "--seed must be at least 0") for command in (EVAL, TRAIN, RECORD)),
    *((f"{command} --max-steps 0", "--max-steps must be positive") for command in (EVAL, RECORD)),
    *((f"{command} --control-dt nan", "must be finite") for command in (EVAL, TRAIN, RECORD)),
    *((f"{command} --episodes 0", "--episodes must be") for command in (EVAL, SWEEP, RECORD)),
    (f"{EVAL} --envs 0", "--envs must be positive; got 0"),
    (f"{EVAL} --batch 0", "--batch must be positive; got 0"),
    (f"{EVAL} --control-dt 0", "--control-dt must be positive"),
    (f"{EVAL} --ms-per-step nan", "--ms-per-step must be finite"),
    (f"{EVAL} --ms-per-step -1", "--ms-per-step must be at least 0"),
    (f"{EVAL} --eta -1", "--eta must be at least 0"),
    *((f"{command} --eta 2", "--eta must be at most 1; got 2.0") for command in (EVAL, SWEEP)),
    *((f"{c} --grid uniform", "one of trailing, leading") for c in (EVAL, SWEEP, DENOISE)),
    *((f"{c} --grid 20,85", "must fall strictly, from at most 99") for c in (EVAL, SWEEP, DENOISE)),
    *((f"{c} --sampler ddpm", "not a sampler; expected") for c in (EVAL, SWEEP, LATENCY)),
    (f"{EVAL} --sampler heun --eta 1", "heun injects no noise"),
    (f"{EVAL} --sampler unipc --eta 1", "unipc injects no noise"),
    (f"{EVAL} --sampler midpoint", "the sampler midpoint is for --schedule flow"),
    (f"{EVAL} --grid lambda --start 99", "must start at a noise σ of at most 80; t = 99 has 2029"),
    (f"{SWEEP} --grid karras --ddim-steps 92", "the 91 timesteps from 90 to 0; got 92"),
    (f"{EVAL} --grid 100,5", "from at most 99 to at least 0; got 100, 5"),
    (f"{EVAL} --start 100", "<= 99; got start 100, end 0"),
    (f"{SWEEP} --start 20 --end 50", "got start 20, end 50"),
    (f"{EVAL} --start 40 --end 31 --ddim-steps 11", "the 10 timesteps from 40 to 31; got 11"),
    (f"{EVAL} --noise-scale -1", "--noise-scale must be at least 0"),
    (f"{SWEEP} --clip -1", "--clip must be at least 0"),
    (f"{DENOISE} --ddim-steps 2 101", "between 1 and the 100 timesteps of the chain; got 101"),
    (f"{SWEEP} --margin 0", "--margin must be positive; got 0"),
    ("sweep --run {run} --plan --margin 0", "--margin must be positive; got 0"),
    (f"{EVAL} --grid 85,20 --ddim-steps 10", "leave out --ddim-steps, --start and --end"),
    (f"{EVAL} --grid 85,20 --start 50", "leave out --ddim-steps, --start and --end"),
    (f"{EVAL} --noise-scale 0.5", "a noise scale needs --eta above 0"),
    (f"{DENOISE} --chunks 0", "--chunks must be positive"),
    ("denoise --run {run} --out new.png", "--out must be a .webp; got new.png"),
    *(
        (
            f"{c} --engine cuda-graph",
            "the cuda-graph engine computes in float32, tf32, bfloat16 on cuda; got",
        )
        for c in (EVAL, SWEEP, LATENCY)
    ),
    (
        f"{EVAL} --engine native --precision bfloat16",
        "the native engine computes in float32 on cpu; got bfloat16",
    ),
    (f"{SWEEP} --latency-ms 3", "give one source of latencies"),
    (f"{EVAL} --clock simulated --latency-ticks 2", "give one source of latencies"),
    (f"{LATENCY} --deadline-ms 0", "--deadline-ms must be positive"),
    ("latency --ddim-steps 1", "expected either --run RUN or --net NAME"),
    (f"{EVAL} --json {{run}}", "is a folder"),
    (f"{TRAIN} --condition 5", "--condition must be even"),
    (f"{TRAIN} --denoiser unet --unet-groups 7", "channels that its groups divide"),
    (f"{TRAIN} --denoiser unet --unet-kernel 4", "odd kernel"),
    (f"{TRAIN} --steps 0", "--steps must be positive"),
    (f"{TRAIN} --steps 5 --minutes 1", "--steps or --minutes, not both"),
    (f"{TRAIN} --batch 0", "--batch must be positive"),
    (f"{TRAIN} --lr -1", "--lr must be positive"),
    (f"{TRAIN} --train-timesteps 0", "--train-timesteps must be positive"),
    (f"{TRAIN} --validation-fraction 1", "--validation-fraction must lie in"),
    (f"{TRAIN} --action-horizon 99", "horizons must be"),
    # numbers beyond all measure
    *(
        (f"{command} --seed {10**30}", f"--seed must be at most 4.61168601843e+18; got {10**30}")
        for command in (EVAL, SWEEP, TRAIN, RECORD, LATENCY, DENOISE)
    ),
    *(
        (f"{command} --threads {10**9}", "--threads must be at most 1024")
        for command in (EVAL, TRAIN, LATENCY, "suite")
    ),
    *((f"{command} --episodes {10**30}", "--episodes must be") for command in (EVAL, RECORD)),
    *((f"{command} --max-steps {10**30}", "--max-steps must be") for command in (EVAL, RECORD)),
    *(
        (f"{command} --control-dt 1e-308", "--control-dt must be at least 1e-06; got 1e-308")
        for command in (EVAL, TRAIN, RECORD)
    ),
    *((f"{command} --clip 1e308", "--clip must be at most 1000000") for command in (EVAL, SWEEP)),
    *((f"{command} --ddim-steps {10**30}", "ddim_steps must lie") for command in (EVAL, LATENCY)),
    *((f"{command} --noise-scale 1e308", "--noise-scale must be") for command in (EVAL, SWEEP)),
    *((f"{command} --start {10**30}", "--start must be at most") for command in (EVAL, SWEEP)),
    *((f"{command} --end {10**30}", "--end must be at most") for command in (EVAL, SWEEP)),
    *((f"{command} --batch {10**30}", "--batch must be at most") for command in (EVAL, TRAIN)),
    *((f"{command} --ms-per-step 1e308", "--ms-per-step must be") for command in (EVAL, SWEEP)),
    (f"eval --run {{run}} {QUICK} --latency-ms 1e308", "--latency-ms must be at most 10000000"),
    (f"eval --run {{run}} {QUICK} --latency-ticks {10**30}", "--latency-ticks must be at most"),
    (f"eval --run {{run}} {QUICK} --latency-seconds 1e308", "--latency-seconds must be at most"),
    (f"{EVAL} --envs {10**9}", "--envs must be at most 4096"),
    (f"{EVAL} --workers {10**9}", "--workers must be at most 1024"),
    (f"{DENOISE} --chunks {10**9}", "--chunks must be at most 1000"),
    (f"delays --run {{run}} {QUICK} --ticks 1 {10**30}", "--ticks must be at most 1000000"),
    (f"{LATENCY} --deadline-ms 1e308", "--deadline-ms must be at most"),
    (f"{LATENCY} --seconds 1e308", "--seconds must be at most"),
    (f"{SWEEP} --margin 1e308", "--margin must be at most"),
    (f"{SWEEP} --floor inf", "--floor must be finite"),
    (f"quickstart --out {{out}} --demonstrations {10**30}", "--demonstrations must be at most"),
    *(
        (f"{TRAIN} --{name} {10**30}", f"--{name} must be at most")
        for name in ("condition", "unet-kernel", "unet-groups", "train-timesteps", "steps", "lr")
    ),
    *(
        (f"{TRAIN} --{name} {10**30}", f"--{name} must be at most")
        for name in ("observation-horizon", "prediction-horizon", "action-horizon", "minutes")
    ),
    (f"{TRAIN} --unet-channels 8 {10**30}", "--unet-channels must be at most 65536"),
    (f"{TRAIN} --batch 1000000 --prediction-horizon 9000", "GiB of memory; cpu has"),
    (
        "train --data {store} --out {out} --device cpu --hidden 65536 --blocks 1000",
        "training this network with --batch 256 takes at least 3.21e+05 GiB of memory",
    ),
    ("quickstart --out {out} --ddim-steps 1 101", "--ddim-steps must be at most 100; got 101"),
    *(
        (f"{command} --env-kwargs {'[' * 100_000}", "nested too deeply")
        for command in (EVAL, TRAIN, RECORD)
    ),
    (f'{TRAIN} --env-kwargs {{{{"x":NaN}}}}', "NaN is not a finite number"),
    (f'{TRAIN} --env-kwargs {{{{"x":1,"x":2}}}}', "an object has a duplicate name"),
    # lists and texts without anything in them
    *((f"{SWEEP} --{name}", f"--{name} needs at least one value") for name in ("sampler", "eta")),
    *((f"{SWEEP} --{name}", f"--{name} needs at least one value") for name in ("end", "clocks")),
    *(
        (f"{command} --ddim-steps", "--ddim-steps needs at least one value")
        for command in (SWEEP, LATENCY, DENOISE)
    ),
    (f"{LATENCY[: LATENCY.rindex(' ')]}", "--engine needs at least one value"),
    (f"{TRAIN} --unet-channels", "--unet-channels needs at least one value"),
    *((f"{command} --env ", "--env is empty") for command in (EVAL, TRAIN, RECORD)),
    ("train --data {store} --out ", "--out is empty; expected a value"),
    ("train --data {store} --out=", "--out is empty; expected a value"),
    ("eval --run ", "--run is empty; expected a value"),
    ("info ", "the first argument is empty; expected a value"),
    # environments
    *((f"{command} --env Nowhere-v0", "'Nowhere-v0'") for command in (EVAL, SWEEP, TRAIN, RECORD)),
    *((f"{command} --env no.where:X-v0", "No module named") for command in (EVAL, TRAIN, RECORD)),
    *((f"{command} --env-kwargs x", "must be a JSON object") for command in (EVAL, TRAIN, RECORD)),
    *((f"{command} --env-kwargs []", "must be a JSON object") for command in (EVAL, TRAIN, RECORD)),
    *(
        (f'{command} --env-kwargs {{{{"colour":1}}}}', "unexpected keyword argument 'colour'")
        for command in (EVAL, TRAIN, RECORD)
    ),
    (f'{EVAL} --env-kwargs {{{{"colour":1}}}}', "It takes: impulses_per_episode, tip_mass_kg"),
    (f"delays --run {{run}} {QUICK} --out {{out}} --env-kwargs x", "must be a JSON object"),
    (f"{EVAL} --env Nowhere-v0", "Environments of a package are named module:Name-v0"),
    (f"{EVAL} --env PushT-v0", "those of this one diffpolicy.envs:Name-v0"),
    ("quickstart --out {file}", "file is a file; expected a folder"),
    (f"train --data {{store}} --out {{file}} {SIZE}", "file is a file; expected a folder"),
    (f"{SWEEP[: SWEEP.index('{out}')]}{{file}}", "file is a file; a folder was expected"),
    (f"{EVAL} --env {PUSHT}", "PushT-v0 has 6 observations and 2 actions"),
    (f"{SWEEP} --env {PUSHT}", "PushT-v0 has 6 observations and 2 actions"),
    (f"{EVAL} --env CartPole-v1", "must take a Box of actions"),
    (f"{TRAIN} --env {PUSHT}", "has observations of 4 numbers"),
    (f"{RECORD} --env Pendulum-v1", "offers no expert"),
    (f"{EVAL} --neutral left", "--neutral must be hold, zero or 1 numbers"),
    (f"{EVAL} --neutral 0,0", "--neutral must be hold, zero or 1 numbers"),
    (f"{EVAL} --neutral nan", "--neutral must be hold, zero or 1 numbers"),
    (f"{EVAL} --success-from won", "info has no won; it holds: success, score"),
    (f"{RECORD} --success-from won", "info has no won; it holds: success, score"),
    (f"{EVAL} --score-from won", "info has no won; it holds: success, score"),
    *((f"{c} --success often", "must be at-any-tick, at-end or held:N") for c in (EVAL, RECORD)),
    *((f"{c} --success held:0", "must be at-any-tick, at-end or held:N") for c in (EVAL, RECORD)),
    (f"{EVAL} --success held:6", "--success held:6 can never hold: episodes last 5 ticks at most"),
    (f"{RECORD} --success held:301", "--success held:301 can never hold"),
    (f"{RECORD} --policy json", "must be module:function"),
    # arrays
    (f"{TRAIN} --obs camera", "has no data/camera; it holds: action, observation"),
    (f"{TRAIN} --obs action", "has observations of 1 numbers"),
    (f"{TRAIN} --obs observation action", "has observations of 5 numbers"),
    # runs and folders
    (f"eval --run nowhere {QUICK}", "no policy.safetensors in nowhere"),
    (f"eval --run {{store}} {QUICK}", "no policy.safetensors in store"),
    (f"eval --run {{file}} {QUICK}", "no policy.safetensors in file"),
    ("latency --run nowhere", "no policy.safetensors in nowhere"),
    (f"sweep --run nowhere {QUICK}", "no policy.safetensors in nowhere"),
    (f"train --data {{store}} --out {{run}} {SIZE}", "already holds a run"),
    (f"record --env {BALANCE} --out {{file}} --episodes 1", "no demonstration store at file"),
    (f"record --env {BALANCE} --out {{run}} --episodes 1", "run cannot be read"),
    (f"record --env {BALANCE} --out {{file}}/x --episodes 1", "Not a directory"),
    (f"record --env {BALANCE} --out {{store}} --episodes 9 --seed 5", "was made with first_seed"),
    # resuming
    (
        "train --data {store} --out {run} --device cpu --hidden 16 --blocks 1 --resume",
        "was started with hidden = 32, not 16",
    ),
    *(
        (
            f"train --data {{store}} --out {{run}} --device cpu {SIZE} {option} --resume",
            "was started with",
        )
        for option in ("--prediction x0", "--schedule linear", "--action-horizon 3", "--seed 1")
    ),
    # the command itself
    ("fly", "'fly' is not a command; choose one of: quickstart, record"),
]


@pytest.mark.parametrize(("command", "message"), BAD, ids=[command for command, _ in BAD])
def test_bad_input_is_one_line_and_changes_nothing(
    at, refused, snapshot, tmp_path, command, message
):
    before = snapshot(tmp_path)
    line = refused(*words(command, at))
    assert message in line
    assert snapshot(tmp_path) == before


def test_resuming_on_other_data_is_refused(at, refused, call, snapshot, tmp_path):
    call(*words(f"record --env {BALANCE} --out other --episodes 1 --seed 50", at))
    before = snapshot(tmp_path)
    line = refused(*words(f"train --data other --out {{run}} {SIZE} --steps 30 --resume", at))
    assert "was started with data = " in line
    assert snapshot(tmp_path) == before


# Stores that are damaged


def delete_a_chunk(store):
    (store / "data/action/0.0").unlink()


def cut_a_chunk_short(store):
    chunk = store / "data/observation/0.0"
    chunk.write_bytes(chunk.read_bytes()[:100])


def shorten_an_array(store):
    zarr.open_group(store)["data/action"].resize((700, 1))


def put_a_nan_inside(store):
    array = zarr.open_group(store)["data/observation"]
    array[777, 2] = np.nan


def take_the_ends_away(store):
    shutil.rmtree(store / "meta/episode_ends")


def spoil_the_metadata(store):
    (store / "data/action/.zarray").write_text("{")


def replace_array(store, name, change):
    data = zarr.open_group(store)["data"]
    values = change(data[name][:])
    del data[name]
    data.create_array(name, data=values)


ACTIONS = [
    (delete_a_chunk, "data/action needs 1 chunks on disk and data/action/0.0 is absent"),
    (shorten_an_array, "shape (700, 1), but meta/episode_ends counts 1800 rows"),
    (spoil_the_metadata, "store: data/action/.zarray cannot be read"),
    (take_the_ends_away, "is not a demonstration store"),
]
OBSERVATIONS = [
    (cut_a_chunk_short, "data/observation cannot be read", "cannot be used: cannot be read"),
    (put_a_nan_inside, "in float32) at row 777", "is not finite (NaN or inf) at row 777"),
]


@pytest.mark.parametrize(("spoil", "message"), ACTIONS)
def test_a_damaged_store_is_one_line_and_changes_nothing(
    at, refused, snapshot, tmp_path, spoil, message
):
    spoil(tmp_path / "store")
    before = snapshot(tmp_path)
    for command in ("info {store}", TRAIN):
        assert message in refused(*words(command, at))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("spoil", "message", "said"), OBSERVATIONS)
def test_a_damaged_observation_is_refused_by_training_and_told_by_info(
    at, refused, call, snapshot, tmp_path, spoil, message, said
):
    spoil(tmp_path / "store")
    before = snapshot(tmp_path)
    assert message in refused(*words(TRAIN, at))
    code, out, errors = call("info", "store")
    assert (code, errors) == (0, [])
    assert said in out and "data/action" in out
    assert snapshot(tmp_path) == before


def test_a_store_that_is_being_written_is_not_recorded_to(at, refused, call, tmp_path):
    command = words(f"record --env {BALANCE} --out {{store}} --episodes 7", at)
    made_with = open_demonstrations(tmp_path / "store").attributes
    writer = DemonstrationWriter(tmp_path / "store", made_with)
    assert "store is being written by another writer" in refused(*command)
    writer.close()
    assert call(*command).code == 0
    assert len(open_demonstrations(tmp_path / "store").episode_ends) == 7


# Attributes, and data that the environment cannot mean


def attributes(**changes):
    return lambda store: edit(store / ".zattrs", **changes)


def actions(change):
    return lambda store: replace_array(store, "action", change)


@pytest.mark.parametrize(
    ("spoil", "message", "remedy"),
    [
        *(
            (attributes(env_kwargs=v), "env_kwargs is not a JSON object", "--env-kwargs {}")
            for v in ("x", [1], 5, None)
        ),
        *(
            (attributes(control_dt_s=v), "control_dt_s is not a positive number", "--control-dt 1")
            for v in ("0.02", {"a": 1}, 0, -1, float("nan"), float("inf"), True)
        ),
        *(
            (attributes(env_id=v), "env_id is not a name", f"--env {BALANCE}")
            for v in (5, "", None, [BALANCE])
        ),
        (attributes(position_targets="no"), "position_targets is not", "--position-targets True"),
        (actions(lambda a: a * 0 + 0.5), "the same action [0.5] in all 1,800 rows", None),
        (actions(lambda a: a * 100 + 200), "1,800 of 1,800 actions outside the", None),
    ],
)
def test_training_refuses_what_cannot_be_meant(at, refused, call, tmp_path, spoil, message, remedy):
    spoil(tmp_path / "store")
    line = refused(*words(TRAIN, at))
    assert message in line
    assert not (tmp_path / "new").exists()
    if remedy:
        assert f"give {remedy.split()[0]}" in line
        assert call(*words(f"{TRAIN} --steps 1", at), *remedy.split()).code == 0


def test_actions_somewhat_outside_of_the_space_are_told_with_figures(at, call, tmp_path):
    actions(lambda a: np.where(np.arange(1800)[:, None] < 3, 1.5, a))(tmp_path / "store")
    code, out, _ = call(*words(f"{TRAIN} --steps 1", at))
    assert code == 0
    assert "warning: store: data/action has 3 of 1,800 actions outside the action space" in out
    assert "row 0 has 1.5 in dimension 0, which ranges from -1 to 1" in out


def test_an_action_that_its_space_pins_is_inside_of_it():
    low = high = np.full(1, 0.1)
    actions = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    pinned = np.concatenate([actions, np.full_like(actions, 0.1)], axis=1)
    assert check_actions("a", pinned, np.append(-1.0, low), np.append(1.0, high)) == []


def test_training_reads_no_array_that_it_does_not_use(at, call, tmp_path):
    data = zarr.open_group(tmp_path / "store")["data"]
    data.create_array("text", data=np.full(1800, "push"))
    data.create_array("force", data=np.full((1800, 3), np.nan))
    data.create_array("camera", data=np.ones((1800, 4)))
    (tmp_path / "store/data/camera/0.0").write_bytes(b"")
    assert call(*words(f"{TRAIN} --steps 1", at)).code == 0


def test_training_takes_actions_of_another_name(at, call, refused, tmp_path):
    data = zarr.open_group(tmp_path / "store")["data"]
    data.create_array("robot/command", data=data["action"][:, 0])
    del data["action"]
    assert "name the array of actions with --action" in refused(*words(TRAIN, at))
    assert call(*words(f"{TRAIN} --steps 1 --action robot/command", at)).code == 0


def test_rows_beyond_the_last_end_are_told(at, call, tmp_path):
    zarr.open_group(tmp_path / "store")["meta/episode_ends"].resize((5,))
    said = "300 of 1,800 rows lie beyond the last of meta/episode_ends (1,500) and are not read"
    assert f"  {said}" in call("info", "store").out
    assert f"warning: {said}" in call(*words(f"{TRAIN} --steps 1", at)).out


def test_a_tilde_that_the_shell_left_is_the_home_folder(at, call, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call("info", "~/store").code == 0
    assert call(*words("train --data=~/store --out=~/a/run --steps 1 --hidden 16", at)).code == 0
    assert (tmp_path / "a/run/policy.safetensors").exists()
    assert call("record", "--env", BALANCE, "--episodes", 1, "--out=~/b").code == 0
    assert (tmp_path / "b/.zgroup").exists()


# Runs that are damaged

SAMPLES = (
    b'{"records": [{"network_evals": %s, "parameters": 9, "engine": %s, "samples_ms": %s}], "a": 1}'
)


def remove(file):
    file.unlink()


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-1000])


def empty(file):
    file.write_bytes(b"")


def scribble(file):
    file.write_bytes(b"\x80\x04K\x01." * 100)


@pytest.mark.parametrize("spoil", [remove, cut_short, empty, scribble])
@pytest.mark.parametrize("command", [EVAL, SWEEP, LATENCY, "info {run}"])
def test_a_damaged_run_is_one_line_and_changes_nothing(
    at, refused, snapshot, tmp_path, command, spoil
):
    spoil(tmp_path / "run" / "policy.safetensors")
    before = snapshot(tmp_path)
    assert "policy.safetensors" in refused(*words(command, at))
    assert snapshot(tmp_path) == before


def nan_weights(file):
    rewrite(file, lambda h, t: t.update({n: x * np.nan for n, x in t.items() if n[0] == "w"}))


def zero_scale(file):
    rewrite(file, lambda h, t: t["normalizer.action.scale"].zero_())


def other_sampler(file):
    rewrite(file, lambda h, t: h["specification"]["model"].pop("prediction") and None)


def negative_clip(file):
    rewrite(file, lambda h, t: h["specification"].update(clip_range=-1.0))


def text_for_a_number(file):
    rewrite(file, lambda h, t: h["specification"]["model"].update(hidden="32"))


def a_bomb(file):
    rewrite(file, lambda h, t: h["specification"]["model"].update(blocks=10**9))


SPOILS = [nan_weights, zero_scale, other_sampler, negative_clip, text_for_a_number, a_bomb]


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_broken_policy_gives_no_result(at, refused, snapshot, tmp_path, spoil):
    spoil(tmp_path / "run" / "policy.safetensors")
    before = snapshot(tmp_path)
    resume = f"train --data {{store}} --out {{run}} {SIZE} --resume --steps 30"
    for command in (EVAL, SWEEP, LATENCY, DENOISE, "info {run}", resume):
        assert "run/policy.safetensors: " in refused(*words(command, at))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "is not a latency profile"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "must be an object"),
        (b'{"records": 5}', "records must be a list"),
        (b'{"records": [5]}', "must be an object"),
        (b'{"records": []}', "holds no latency samples"),
        (b'{"records": [{"samples_ms": [1]}]}', "lacks network_evals, parameters, engine"),
        (SAMPLES % (b"1.5", b'"eager"', b"[1]"), "network_evals must be a whole number; got 1.5"),
        (SAMPLES % (b"1" * 40, b'"eager"', b"[1]"), "network_evals must be at most 1000000"),
        (SAMPLES % (b"1", b"7", b"[1]"), "engine must be a text; got 7"),
        (SAMPLES % (b"1", b'"eager"', b"[NaN]"), "NaN is not a finite number"),
        (SAMPLES % (b"1", b'"eager"', b"[1, -1]"), "samples_ms must be at least 0; got -1"),
        (SAMPLES % (b"1", b'"eager"', b"[1e300]"), "samples_ms must be at most 10000000"),
        (SAMPLES % (b"1", b'"eager"', b'["x"]'), "samples_ms[0] must be a number; got 'x'"),
        (SAMPLES % (b"1", b'"eager"', b"{}"), "holds no latency samples"),
        (SAMPLES % (b"1", b'"eager"', b'"abc"'), "samples_ms must be a list; got 'abc'"),
    ],
)
def test_a_latency_profile_that_is_none_is_refused(at, refused, snapshot, tmp_path, text, message):
    (tmp_path / "profile.json").write_bytes(text)
    before = snapshot(tmp_path)
    command = f"eval --run {{run}} {QUICK} --clock simulated --latency-from profile.json"
    assert message in refused(*words(command, at))
    assert snapshot(tmp_path) == before


def test_a_latency_profile_that_is_absent_is_named(at, refused):
    command = f"eval --run {{run}} {QUICK} --clock simulated --latency-from nowhere.json"
    assert "no latency profile at nowhere.json: there is no such file" in refused(
        *words(command, at)
    )


def test_a_result_is_not_a_run_or_demonstrations(refused, tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    line = refused("info", tmp_path / "sweep.json")
    assert "is a JSON file; expected a run folder or demonstrations" in line
    assert line.endswith(f"diffpolicy report {tmp_path / 'sweep.json'}")


@pytest.mark.parametrize("spoil", [cut_short, empty, scribble])
def test_a_damaged_training_state_is_not_resumed(at, refused, snapshot, tmp_path, spoil):
    spoil(tmp_path / "run" / "training.safetensors")
    before = snapshot(tmp_path)
    line = refused(*words(f"train --data {{store}} --out {{run}} {SIZE} --resume --steps 30", at))
    assert "training.safetensors is corrupt" in line
    assert snapshot(tmp_path) == before


# A full disk


@contextmanager
def files_of_at_most(size):
    """Limit the size of written files, to simulate a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_training_on_a_full_disk_leaves_no_half_file(at, refused, tmp_path):
    with files_of_at_most(20_000):
        refused(*words(f"{TRAIN} --steps 3", at))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["log.jsonl"]


def test_resuming_on_a_full_disk_leaves_the_run_as_it_was(at, refused, snapshot, tmp_path):
    before = snapshot(tmp_path)
    with files_of_at_most(20_000):
        refused(*words(f"train --data {{store}} --out {{run}} {SIZE} --resume --steps 25", at))
    after = snapshot(tmp_path)
    del before["run/log.jsonl"], after["run/log.jsonl"]
    assert after == before


def test_recording_on_a_full_disk_loses_nothing_and_goes_on_later(at, refused, call, tmp_path):
    command = words(f"record --env {BALANCE} --out new --episodes 6", at)
    with files_of_at_most(20_000):  # enough for the first episodes, not for all of them
        assert "File too large: new" in refused(*command)
    kept, whole = (open_demonstrations(tmp_path / name) for name in ("new", "store"))
    count = len(kept.episode_ends)
    assert 0 < count < 6
    rows = whole.episode_ends[count - 1]
    np.testing.assert_array_equal(kept.action, whole.action[:rows])
    assert call(*command).code == 0
    np.testing.assert_array_equal(open_demonstrations(tmp_path / "new").action, whole.action)


def test_a_result_that_cannot_be_written_leaves_the_old_one(at, refused, tmp_path):
    (tmp_path / "result.json").write_text("old")
    with files_of_at_most(100):
        line = refused(*words(f"{EVAL} --json result.json", at))
    assert "File too large: result." in line
    assert (tmp_path / "result.json").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


# The command in a process of its own


def in_a_process(*arguments):
    code = "from diffpolicy.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )


def test_a_real_process_exits_with_2_and_one_line(tmp_path):
    done = in_a_process("info", tmp_path / "a place of ü")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("diffpolicy: no demonstration")


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options_are_refused_by_every_command(call, command):
    code, _, errors = call(command, "--colour", "red")
    assert code != 0 and errors
    assert not any("Traceback" in line for line in errors)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_names_every_command(monkeypatch, capsys, arguments):
    from diffpolicy import cli

    monkeypatch.setattr(sys, "argv", ["diffpolicy", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {command} " in out for command in COMMANDS)
    assert [line[:-1] for line in out.splitlines() if line.endswith(":")] == list(cli.GROUPS)
    assert sum(map(len, cli.GROUPS.values())) == len(COMMANDS)


def test_errors_are_one_line_however_long(monkeypatch, refused):
    from diffpolicy import info

    def fail(config):
        raise DiffpolicyError("first\n    second\n\nthird")

    monkeypatch.setattr(info, "info", fail)
    assert refused("info", "x") == "diffpolicy: first second third"


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("profile.json", f"{EVAL.replace(' --ms-per-step 0', '')} --latency-from profile.json"),
        ("result.episodes.jsonl", f"{EVAL} --json result.json"),
    ],
)
def test_a_pipe_in_a_file_s_place_is_refused_and_not_waited_for(
    at, refused, tmp_path, place, command
):
    os.mkfifo(tmp_path / place)
    assert f"{place} is not a file" in refused(*words(command, at))


def test_a_pipe_in_the_log_s_place_is_refused(at, refused, tmp_path):
    (tmp_path / "run/log.jsonl").unlink()
    os.mkfifo(tmp_path / "run/log.jsonl")
    command = f"train --data {{store}} --out {{run}} {SIZE} --resume --steps 21"
    assert "is a device or a pipe; a regular file was expected" in refused(*words(command, at))
    assert (tmp_path / "run/log.jsonl").is_fifo()


@pytest.mark.parametrize("name", ["meta/episode_seeds", "meta/episode_ends", "data/action"])
@pytest.mark.parametrize("wrong", [{"blocksize": 10**30}, {"clevel": 99}, {"clevel": {}}])
def test_a_codec_that_cannot_encode_is_found_before_anything_changes(
    at, refused, snapshot, tmp_path, name, wrong
):
    codec = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0, **wrong}
    edit(tmp_path / "store" / name / ".zarray", compressor=codec)
    before = snapshot(tmp_path)
    assert name in refused(*words(f"record --env {BALANCE} --out {{store}} --episodes 7", at))
    assert snapshot(tmp_path) == before
