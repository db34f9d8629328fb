"""``python -m pipeline.cli``: the command, by the interpreter that runs it."""

from pipeline.cli.start import main

if __name__ == "__main__":
    main()
