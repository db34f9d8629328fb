"""``python -m pipeline.cli``: run the command with this interpreter."""

from pipeline.cli.start import main

if __name__ == "__main__":
    main()
