"""Pictures of episodes: stills, films, their files, and the videos of `eval` and `sweep`."""
