"""`python prepare.py`: the same as the console script `latentsync-prepare`."""

from latentsync.cli.entry import prepare

if __name__ == "__main__":
    prepare()
