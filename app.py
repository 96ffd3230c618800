"""`python app.py`: the web page, the same as `python -m latentsync.app`."""

from latentsync.cli.app import main

if __name__ == "__main__":
    main()
