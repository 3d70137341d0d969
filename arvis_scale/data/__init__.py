"""Images in and out: building, checking and reading shards, and the exact order in which training sees them.

Only `loader` imports torch; everything else works in the base install.
"""
