"""Where tensors live, and whether its cores are free."""

import pytest
import torch

from diffpolicy import device


@pytest.mark.parametrize(("threads", "together_ms"), [(2, 4.0), (2, 1.2), (1, 1.0)])
def test_threads_in_each_other_s_way_are_told(monkeypatch, capsys, threads, together_ms):
    asked = []

    def product_ms(count):
        asked.append(count)
        torch.set_num_threads(count)
        return together_ms if count == threads else 1.0

    monkeypatch.setattr(device, "_product_ms", product_ms)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        device.warn_of_busy_cores()
        assert torch.get_num_threads() == threads and asked == ([threads, 1] if threads > 1 else [])
    finally:
        torch.set_num_threads(before)
    said = "2 threads take 4.0 times as long as one" in capsys.readouterr().out
    assert said == (together_ms == 4.0)
