"""Interfaces: the calls of other DDIM implementations, thin over `diffpolicy.sampling`.

ddim.py        functions: build, make_schedule, ddim_step, ddim_sample (Edifice)
scheduler.py   the DDIMScheduler object (Hugging Face diffusers)
loop.py        one call over linspace(-1, T - 1, S + 1) (denoising-diffusion-pytorch)
notebook.py    one call with a dense tail; skipped steps reuse the last prediction

To add an interface, write one file that makes a step table and runs `sampling.steps`, and test it
against the numbers of the original in tests/interfaces.
"""
