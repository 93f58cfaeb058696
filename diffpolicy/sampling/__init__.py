"""Diffusion sampling: noise levels, timestep grids, steps, methods and chains."""
