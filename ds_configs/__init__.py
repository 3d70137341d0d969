"""One DeepSpeed configuration per strategy; `arvis_scale.engine.strategy` completes them from the run's own."""
