"""`python -m embodichain`, the same as the console script."""

import sys

from embodichain.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
