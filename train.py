"""`python train.py`: the same as the console script `latentsync-train`."""

from latentsync.cli.train import main

if __name__ == "__main__":
    main()
