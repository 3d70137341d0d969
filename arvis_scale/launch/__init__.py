"""Studies: a grid of runs, given to submitit, and their status."""
