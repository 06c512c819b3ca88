"""`python -m trio_stream`, the same as `trio-stream`; says what to install where the extra is missing."""

import sys


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    try:
        from .cli import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("trio_stream"):
            raise
        sys.exit(f"trio-stream: the command line needs {error.name}: pip install 'trio-stream[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
