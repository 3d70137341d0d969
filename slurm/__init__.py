"""Study files and cluster profiles that ship with the package, installed as `arvis_scale.slurm`."""
