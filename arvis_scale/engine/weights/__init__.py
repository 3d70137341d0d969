"""Weights on their way in and out of a run."""
