"""`python -m arvis_scale` is `arvis-scale`."""

from arvis_scale.cli import main

if __name__ == "__main__":
    main()
