"""`python infer.py`: the same as the console script `latentsync-infer`."""

from latentsync.cli.infer import main

if __name__ == "__main__":
    main()
