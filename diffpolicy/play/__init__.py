"""A policy at play: a person changes its number of steps and its delay while it runs."""
