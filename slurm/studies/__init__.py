"""Study files: grids of runs for `arvis-scale sweep submit`."""
