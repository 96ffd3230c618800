"""`python train.py`: the same as the console script `latentsync-train`."""

from latentsync.cli.entry import train

if __name__ == "__main__":
    train()
