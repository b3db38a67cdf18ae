"""`python -m taskyard.ops.cli`: the command line, if the `taskyard` script is not on the path."""

from taskyard.ops.cli.main import main

if __name__ == "__main__":
    main()
