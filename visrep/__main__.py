"""`python -m visrep COMMAND key=value` and `torchrun ... -m visrep COMMAND key=value`."""

from visrep.cli import main

if __name__ == "__main__":
    main()
