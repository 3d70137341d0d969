"""What became of a study's runs: what their folders say and what the executor knows of their jobs, side by side."""
