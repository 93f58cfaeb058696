"""One K-step sampling loop, observation to action chunk, made fast. `eager` is the reference."""
