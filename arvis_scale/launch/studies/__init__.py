"""From a study file to its runs: read, expanded, named, checked against what the folder holds, and counted."""
