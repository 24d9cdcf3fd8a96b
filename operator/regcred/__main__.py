"""`python -m regcred` is the command line."""

from regcred import cli

if __name__ == "__main__":
    cli.main()
