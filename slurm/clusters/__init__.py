"""Cluster profiles: what a cluster wants to be asked, for `launch.cluster=NAME`."""
