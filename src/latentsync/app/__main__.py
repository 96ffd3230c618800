"""`python -m latentsync.app`: the same as `python app.py`."""

from latentsync.cli.app import main

if __name__ == "__main__":
    main()
