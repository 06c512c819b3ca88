"""The checks, each in an environment of its own that needs nothing but Python and pip.

`nox` runs what a contributor should have run before handing in, on one Python; `nox -s tests coverage` the tests on
every Python there is. A Python that is missing is skipped, but where CI is set that is an error.
`nox -s quick -- -k resume` runs some tests, `nox -s tests-3.15 -- -k resume` runs them on another Python.
"""

import re
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import nox

nox.needs_version = ">=2026.10.20"
nox.options.sessions = ["lint", "typing", "quick", "docs", "package"]
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
CORE = ",".join(
    f"*/{path}" for path in sorted(Path("trio_stream").glob("_*.py")) if path.name != "__main__.py"
)
PARALLEL = ("-n", "auto", "--dist", "worksteal")
USUAL = ("-m", "not slow and not variant")
WITHOUT_SERVERS = ("--ignore=tests/stores/postgresql", "--ignore=tests/testing")
DATA = ("trio_stream/py.typed", "trio_stream/cli/services.txt")  # what is in the package and no module
INSTALLED = {"PYTHONSAFEPATH": "1"}  # `python -m` would put the checkout in front of what is installed


def install(session: nox.Session, *groups: str, extras: str = "") -> None:
    """Installs the library as a user gets it, and the tools of these dependency groups."""
    session.install(f".{extras}", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def quick(session: nox.Session) -> None:
    """The tests on one Python, with trio, asyncio and uvloop, without those that are slow."""
    install(session, "tests", extras="[cli]")
    chosen = session.posargs or (*PARALLEL, "-m", "not slow")
    session.run("python", "-m", "pytest", *chosen, env=INSTALLED)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All the tests on the newest Python; on the others what is not slow, on trio and asyncio.

    Those between the oldest and the newest leave out servers, and what tests the test kit, and measure no coverage.
    """
    install(session, "tests", extras="[cli]")
    if session.posargs:
        session.run("python", "-m", "pytest", *session.posargs, env=INSTALLED)
        return
    if session.python in PYTHONS[1:-1]:
        session.run("python", "-m", "pytest", *PARALLEL, *USUAL, *WITHOUT_SERVERS, env=INSTALLED)
        return
    for stale in Path().glob(f".coverage.{session.python}.*"):
        stale.unlink()
    chosen = () if session.python == PYTHONS[-1] else USUAL
    data = str(Path.cwd() / f".coverage.{session.python}")
    environment = {**INSTALLED, "COVERAGE_FILE": data}
    session.run("coverage", "run", "-m", "pytest", *PARALLEL, *chosen, env=environment)


@nox.session(venv_backend="none")
def coverage(session: nox.Session) -> None:
    """Branch coverage of the test runs that measure it, as the newest Python among them reports it."""
    measured = [python for python in PYTHONS if any(Path().glob(f".coverage.{python}.*"))]
    if not measured:
        session.error("there is nothing to report: `nox -s tests` measures")
    session.notify(f"report-{measured[-1]}")


@nox.session(python=PYTHONS, default=False)
def report(session: nox.Session) -> None:
    """Called by `coverage`: all of the core has to be covered, and nearly all of the rest."""
    session.install(*nox.project.dependency_groups(PROJECT, "tests"))
    session.run("coverage", "combine")
    session.run("coverage", "report", f"--include={CORE}", "--fail-under=100")
    session.run("coverage", "report", f"--omit={CORE}", "--fail-under=95")


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Tests on trio and asyncio, on the lowest Python with the lowest versions that pyproject.toml allows."""
    project = PROJECT["project"]
    bounds = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        bounds += extra
    constraints = Path(session.create_tmp()) / "constraints.txt"
    constraints.write_text("\n".join(re.sub(r"(\[.*\])?>=", "==", bound) for bound in bounds))
    session.install(".[cli]", "-c", str(constraints), *nox.project.dependency_groups(PROJECT, "tests"))
    session.run(
        "python",
        "-m",
        "pytest",
        *(session.posargs or (*PARALLEL, *USUAL, "--ignore=tests/testing")),
        env=INSTALLED,
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Format, style, import contracts, checkpoint rules; `nox -s lint -- --fix` mends what can be mended."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    fix = "--fix" in session.posargs
    session.run("ruff", "format", *([] if fix else ["--check"]))
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("lint-imports", "--no-logo")
    # What is async always checkpoints. Not so in tests and in the command line, which nobody else awaits;
    # the other rules for async code are ruff's.
    library = [str(path) for path in sorted(Path("trio_stream").rglob("*.py")) if "cli" not in path.parts]
    session.run("flake8-async", "--enable=ASYNC900,ASYNC910,ASYNC911", *library)


@nox.session
def typing(session: nox.Session) -> None:
    """The types of the library, of its tests and of what its users see."""
    install(session, "typing", extras="[cli]")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_stream", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation: every example and code block runs, every page builds, every reference resolves."""
    install(session, "docs", extras="[cli]")
    session.run("python", "-m", "pytest", "tests/docs", env=INSTALLED)
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-E", "docs", "docs/_build/html")


@nox.session
def package(session: nox.Session) -> None:
    """The sdist and the wheel: what must be in them is, and nothing else."""
    session.install(*nox.project.dependency_groups(PROJECT, "package"))
    built = Path(session.create_tmp()) / "dist"
    for stale in built.glob("*"):
        stale.unlink()
    session.run("python", "-m", "build", "--outdir", str(built))
    (sdist,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    with tarfile.open(sdist) as archive:
        check_sdist(session, [PurePosixPath(name) for name in archive.getnames()])
    with zipfile.ZipFile(wheel) as archive:
        check_wheel(session, [PurePosixPath(name) for name in archive.namelist()])


def check_sdist(session: nox.Session, paths: list[PurePosixPath]) -> None:
    files = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "noxfile.py", "pyproject.toml", ".gitignore"}
    inside = [path.relative_to(path.parts[0]) for path in paths]
    for path in inside:
        if path.parts[0] not in files | {"trio_stream", "tests", "docs"}:
            session.error(f"the sdist has no place for {path}")
        if any(part in {"__pycache__", "_build"} or part.startswith(".") for part in path.parts[1:]):
            session.error(f"the sdist contains a cache: {path}")
    if missing := {PurePosixPath(name) for name in files} - set(inside):
        session.error(f"the sdist lacks {missing}")


def check_wheel(session: nox.Session, paths: list[PurePosixPath]) -> None:
    for path in paths:
        if path.parts[0] != "trio_stream" and not path.parts[0].endswith(".dist-info"):
            session.error(f"the wheel contains more than the package: {path}")
        if "__pycache__" in path.parts:
            session.error(f"the wheel contains a cache: {path}")
        if path.parts[0] == "trio_stream" and path.suffix != ".py" and str(path) not in DATA:
            session.error(f"the wheel contains what is no module: {path}")
    if PurePosixPath("trio_stream/py.typed") not in paths:
        session.error("the wheel lacks py.typed")


@nox.session
def proof(session: nox.Session) -> None:
    """All that is tried to prove the promises wrong; writes docs/reference/evidence.md if nothing has.

    What has passed is not done again as long as the library is the same, unless with `-- --fresh`.
    """
    install(session, "proof", extras="[cli]")
    session.run("python", "tests/report.py", *session.posargs, env=INSTALLED)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark; `-- --quick`, `-- --row NAME`, `-- --report docs/explanation` for the documentation.

    `-- --against WHEEL_OR_PATH` compares with another version.
    """
    install(session, "bench", extras="[cli]")
    result = Path(session.create_tmp()) / "benchmarks.json"
    benchmarks = str(Path("tests").absolute())
    environment = {**INSTALLED, "PYTHONPATH": benchmarks}
    session.run("python", "-m", "benchmarks", "--json", str(result), *session.posargs, env=environment)


@nox.session
def demo(session: nox.Session) -> None:
    """The demonstration, from the installed package, on both back ends."""
    install(session, extras="[cli]")
    session.chdir(session.create_tmp())
    session.run("trio-stream", "demo", *session.posargs)
    session.run("trio-stream", "demo", "--backend", "asyncio", *session.posargs)
