"""`python -m pipelines` is `genpipe`."""

from pipelines.cli.main import run

if __name__ == "__main__":
    run()
