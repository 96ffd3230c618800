"""`python prepare.py`: the same as the console script `latentsync-prepare`."""

from latentsync.cli.prepare import main

if __name__ == "__main__":
    main()
