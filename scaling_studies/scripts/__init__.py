"""One script per figure: run it on a table of points, or copy it and change what it draws.

    python -m scaling_studies.scripts.plot_error_vs_data POINTS.csv

Each opens with its command and what it prints for the simulated points that it draws when no table is given.
"""
