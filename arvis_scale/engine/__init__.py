"""One training run: processes, DeepSpeed, the train loop, checkpoints, metrics and the run folder."""
