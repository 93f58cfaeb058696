"""Device selection, exact float32 products, and the warning about busy cores."""

import subprocess
import sys

import pytest
import torch

from diffpolicy import device

SWITCHES = """
import torch
from diffpolicy.device import float32_products
m, c = torch.backends.cuda.matmul, torch.backends.cudnn
def state(): return [b.fp32_precision for b in (m, c.conv)]
for setting in (
    "pass",
    "c.allow_tf32 = False",
    "m.allow_tf32 = True",
    "torch.set_float32_matmul_precision('high')",
    "torch.backends.fp32_precision = 'tf32'",  # allow_tf32 cannot be read after this
):
    exec(setting)
    before = state()
    for tf32, wanted in ((True, "tf32"), (False, "ieee")):
        with float32_products(torch.device("cuda"), tf32):
            assert state() == [wanted] * 2, (setting, state())
        assert state() == before, (setting, before, state())
    with float32_products(torch.device("cpu")):
        assert state() == before
"""


def test_float32_is_exact_on_cuda_and_the_program_s_own_switches_come_back():
    """Run in its own process, because not every switch can be set back."""
    subprocess.run([sys.executable, "-c", SWITCHES], check=True)


@pytest.mark.gpu
def test_tensorfloat32_is_what_is_rounded_and_is_off_otherwise():
    x = torch.randn(512, 512, device="cuda")
    exact = x.double() @ x.double()
    with device.float32_products(x.device):
        near = (x @ x - exact).abs().max()
    with device.float32_products(x.device, tf32=True):
        far = (x @ x - exact).abs().max()
    assert 10 * near < far


@pytest.mark.parametrize(("threads", "together_ms"), [(2, 4.0), (2, 1.2), (1, 1.0)])
def test_threads_that_slow_one_another_down_are_a_warning(monkeypatch, threads, together_ms):
    asked = []

    def product_ms(count):
        asked.append(count)
        torch.set_num_threads(count)
        return together_ms if count == threads else 1.0

    monkeypatch.setattr(device, "_product_ms", product_ms)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        warning = device.busy_cores_warning()
        assert torch.get_num_threads() == threads and asked == ([threads, 1] if threads > 1 else [])
    finally:
        torch.set_num_threads(before)
    assert (warning is not None) == (together_ms == 4.0)
    assert warning is None or warning.startswith("2 threads take 4.0 times as long as one")
