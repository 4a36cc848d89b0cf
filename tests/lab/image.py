"""The file system every node starts from: a small Debian with sentinel's dependencies, made once.

- It is made from what the host already trusts: apt's own mirror and proxy, pip's own index.
- Its name carries a hash of its recipe, so a changed package list or dependency makes a new one.
- It appears under that name complete or not at all, and only one process builds at a time.
- Whoever builds it can be killed at any moment: what it ran dies with it, in a mount and pid
  namespace of its own, and the remains are deleted before the next build.

Environment: SENTINEL_LAB_DIR (where images are kept; .lab of the project), SENTINEL_LAB_SUITE
(the Debian release), SENTINEL_LAB_MIRROR (instead of apt's).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
import tomllib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from haproxies import wait_until
from lab.command import CONTAINED, ENVIRONMENT, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROJECT: Final = Path(__file__).parents[2]
VENV: Final = "/opt/sentinel"
PACKAGES: Final = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "haproxy",
    "keepalived",
    "rsyslog",
    "iproute2",
    "python3",
    "python3-venv",
    "psmisc",
    "procps",
    "logrotate",
    "curl",
)
#: Enabled by Debian. A node starts none of them by itself: a test starts what it is about, and
#: no timer fires in the middle of it.
DISABLED: Final = (
    "haproxy.service",
    "keepalived.service",
    "cron.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "logrotate.timer",
)
BUILD_TIMEOUT_S: Final = 1200.0
#: To be raised when the recipe changes in a way that its lists do not show.
_EDITION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides what is in an image."""

    suite: str
    packages: tuple[str, ...]
    dependencies: tuple[str, ...]
    edition: int = _EDITION

    @property
    def name(self) -> str:
        """Name of the folder the image is kept in."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()
        return f"image-{self.suite}-{digest[:12]}"


def project_recipe() -> Recipe:
    """Return the recipe of an image for the project as it is now."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return Recipe(
        suite=os.environ.get("SENTINEL_LAB_SUITE", "bookworm"),
        packages=PACKAGES,
        dependencies=tuple(project["dependencies"]),
    )


def lab_folder() -> Path:
    """Return the folder that images are kept in."""
    return Path(os.environ.get("SENTINEL_LAB_DIR", PROJECT / ".lab")).absolute()


def build(recipe: Recipe, root: Path) -> None:
    """Make the image at *root*; raises CommandFailed with the words of the program that failed."""
    _contained(
        *("debootstrap", "--variant=minbase", f"--include={','.join(recipe.packages)}"),
        *(recipe.suite, str(root), mirror(recipe.suite)),
        env=os.environ | _apt_proxy(),
    )
    _install_dependencies(recipe, root)
    _contained("chroot", str(root), "systemctl", "disable", *DISABLED)
    _forget_host(root)


@contextmanager
def held_image(
    folder: Path, recipe: Recipe, build: Callable[[Recipe, Path], None] = build
) -> Iterator[Path]:
    """Hand over the root of the image of *recipe*, made if need be.

    It is not deleted as outdated by anyone else for as long as the context lasts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / recipe.name
    with ExitStack() as held:
        with _locked(folder, fcntl.LOCK_EX):
            if not root.exists():
                _build_whole(recipe, root, build)
            held.enter_context(_locked(root, fcntl.LOCK_SH))
            _delete_outdated(root, recipe.suite)
        yield root


def mirror(suite: str) -> str:
    """Return the URL that the host's own apt fetches Debian from."""
    if url := os.environ.get("SENTINEL_LAB_MIRROR"):
        return url
    columns = "$(CODENAME) $(RELEASE) $(REPO_URI)"
    targets = run(("apt-get", "indextargets", "--format", columns, "Created-By: Packages")).stdout
    return choose_mirror(targets, suite, _host_codename())


def choose_mirror(targets: str, suite: str, host_codename: str) -> str:
    """Choose from apt's index targets: the one of *suite*, else the one of the host's own release.

    Raises LookupError when apt knows neither.
    """
    mirrors: dict[str, str] = {}
    for codename, release, url in (line.split() for line in targets.splitlines()):
        mirrors.setdefault(codename, url)
        mirrors.setdefault(release, url)
    for wanted in (suite, host_codename):
        if wanted in mirrors:
            return mirrors[wanted]
    raise LookupError(f"apt fetches {suite} from nowhere: set SENTINEL_LAB_MIRROR to a mirror")


def _host_codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    release = dict(line.split("=", 1) for line in lines if "=" in line)
    return release.get("VERSION_CODENAME", "").strip('"')


def _apt_proxy() -> dict[str, str]:
    """Return the variables that make other programs use apt's proxy; apt's DIRECT means none."""
    names = ("http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy")
    assignments = shlex.split(run(("apt-config", "shell", *names)).stdout)
    proxies = dict(assignment.split("=", 1) for assignment in assignments)
    return {name: url for name, url in proxies.items() if url != "DIRECT"}


def _install_dependencies(recipe: Recipe, root: Path) -> None:
    """Fetch with the host's pip, which knows its index; install without any network."""
    wheels = root / "wheels"
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet")
    fetch = (*pip, "--use-pep517", "--wheel-dir", str(wheels))  # Debian's venv cannot build else
    _contained(*fetch, *recipe.dependencies, env=os.environ)
    chroot = ("chroot", str(root))
    _contained(*chroot, "python3", "-m", "venv", VENV)
    offline = ("--quiet", "--no-index", "--find-links", "/wheels")
    _contained(*chroot, f"{VENV}/bin/pip", "install", *offline, *recipe.dependencies)
    shutil.rmtree(wheels)


def _contained(*argv: str, env: Mapping[str, str] = MappingProxyType({})) -> None:
    environment = {**ENVIRONMENT, "DEBIAN_FRONTEND": "noninteractive", **env}
    run((*CONTAINED, *argv), timeout_s=BUILD_TIMEOUT_S, env=environment)


def _forget_host(root: Path) -> None:
    """Remove what debootstrap took over from the host, and what every node must have of its own."""
    etc = root / "etc"
    (etc / "hostname").unlink(missing_ok=True)
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    # Empty, not missing: missing would mean a first boot, which enables all units (machine-id(5)).
    (etc / "machine-id").unlink()
    (etc / "machine-id").touch()
    shutil.rmtree(root / "var/cache/apt")
    shutil.rmtree(root / "var/lib/apt/lists")


def _build_whole(recipe: Recipe, root: Path, build: Callable[[Recipe, Path], None]) -> None:
    """Build beside *root* and rename; under the lock, what other builds left is of killed ones."""
    for remains in root.parent.glob("building-*"):
        shutil.rmtree(remains)
    unfinished = Path(tempfile.mkdtemp(prefix="building-", dir=root.parent))
    try:
        unfinished.chmod(0o755)
        build(recipe, unfinished)
        unfinished.rename(root)
    except BaseException:
        shutil.rmtree(unfinished)
        raise


def _delete_outdated(current: Path, suite: str) -> None:
    """Delete the images of *suite* that are neither *current* nor held by another process."""
    for image in current.parent.glob(f"image-{suite}-*"):
        if image != current:
            with suppress(BlockingIOError), _locked(image, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(image.rename(image.with_name(f"building-{image.name}")))


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Hold a flock(2) on *folder*, which the kernel drops when we die; wait as long as a build."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if kind & fcntl.LOCK_NB:
            fcntl.flock(descriptor, kind)
        else:
            wait_until(lambda: _try_lock(descriptor, kind), f"lock of {folder}", BUILD_TIMEOUT_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
