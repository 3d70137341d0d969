"""Run configurations by name, as YAML."""
