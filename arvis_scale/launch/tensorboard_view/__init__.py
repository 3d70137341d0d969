"""TensorBoard for a whole sweep: a view of its runs' metrics.jsonl and results, thinned and grouped.

    STUDY/tensorboard/scalars/OBJECTIVE/PRESET/RUN/   curves of some hundred points, and the run's line in HPARAMS
    STUDY/tensorboard/images/OBJECTIVE/PRESET/RUN     link to the pictures that the run has written

No torch here, so that the command starts at once.
"""
