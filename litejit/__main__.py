"""`python -m litejit`: the command."""

import sys

from litejit.cli import main

if __name__ == "__main__":
    sys.exit(main())
