"""Studies: grids of runs (`studies`), given to submitit (`executors`), run (`jobs`), looked at (`status`)."""
