"""What watches a run: bad steps, hanging and slow processes."""
