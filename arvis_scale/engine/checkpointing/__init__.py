"""Saving a run, going on from where it was saved, and branching off from there."""
