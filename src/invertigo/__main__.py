"""`python -m invertigo` is the command `invertigo`."""

from invertigo.cli import main

if __name__ == "__main__":
    main()
