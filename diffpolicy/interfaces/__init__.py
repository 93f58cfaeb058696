"""The ways people already call DDIM, thin over noise.py, grids.py and sampler.py.

ddim.py        functions: build, make_schedule, ddim_step, ddim_sample (Edifice)
scheduler.py   the DDIMScheduler object (Hugging Face diffusers)
loop.py        one call over linspace(-1, T - 1, S + 1) (denoising-diffusion-pytorch)
notebook.py    one call with a dense tail, where skipped steps reuse the last prediction
"""
