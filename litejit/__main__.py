"""`python -m litejit`: the command."""
from litejit.cli import main

if __name__ == "__main__":
    main()
