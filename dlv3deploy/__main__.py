"""`python -m dlv3deploy`, the same program as the `dlv3deploy` command."""

from dlv3deploy.cli import main

if __name__ == "__main__":
    main()
