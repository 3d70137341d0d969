"""`python -m scaling_studies`: a `ValueError` is the user's to mend and ends as one line and status 2."""

from __future__ import annotations

import sys

from scaling_studies.cli import app


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="python -m scaling_studies")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
