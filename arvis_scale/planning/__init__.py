"""Estimates made before anything runs: parameters and FLOPs."""
