"""`python evaluate.py`: the same as the console script `latentsync-evaluate`."""

from latentsync.cli.evaluate import main

if __name__ == "__main__":
    main()
