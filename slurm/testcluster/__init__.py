"""The scripts of a throw-away Slurm cluster on this machine, for tests (`cluster.sh`)."""
