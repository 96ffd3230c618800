"""`python evaluate.py`: the same as the console script `latentsync-evaluate`."""

from latentsync.cli.entry import evaluate

if __name__ == "__main__":
    evaluate()
