"""Sampling: noise levels, timestep grids, step tables, one file per method, and chains.

noise.py, grids.py   the noise levels, and the timesteps that a step budget visits
parameterisation.py  the network's output as ε, x0 or v
steps.py             the row of a step table, and the loop over the rows
ddim.py              DDIM and ancestral DDPM as a table
chain.py             the table of a model under a step budget, its name and its summary
wrappers.py          what no table can express: thresholding, reuse, self-conditioning
latent.py            DDIM backwards, and interpolation

To add a linear sampler, write a function that returns rows, and call it in `chain.make_chain`;
every engine runs it.
"""
