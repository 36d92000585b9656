"""`python -m regularity.cli`."""

from regularity.cli import main

if __name__ == "__main__":
    main()
