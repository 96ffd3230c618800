"""`python infer.py`: the same as the console script `latentsync-infer`."""

from latentsync.cli.entry import infer

if __name__ == "__main__":
    infer()
