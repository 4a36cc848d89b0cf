"""Certificates for tests, made by the openssl command with any dates."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_CA: Final = """\
[ca]
default_ca = test
[test]
database = {folder}/index.txt
new_certs_dir = {folder}
default_md = sha256
rand_serial = yes
unique_subject = no
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = {names}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A self-signed certificate: *file* holds it and its key, as HAProxy's ``crt`` wants them."""

    file: Path
    not_after: datetime


def issue(
    folder: Path,
    *,
    names: str = "DNS:localhost,IP:127.0.0.1",
    good_for: timedelta = timedelta(days=30),
) -> Certificate:
    """Make a certificate that ends *good_for* from now; negative: it has ended."""
    return issue_until(folder, datetime.now(UTC).replace(microsecond=0) + good_for, names=names)


def issue_until(
    folder: Path, not_after: datetime, *, names: str = "DNS:localhost,IP:127.0.0.1"
) -> Certificate:
    """Make a certificate that begins in 1960 and ends at *not_after*, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    key, request, file = folder / "key.pem", folder / "request.pem", folder / "site.pem"
    (folder / "index.txt").write_text("")
    (folder / "ca.cnf").write_text(_CA.format(folder=folder, names=names))
    if not key.exists():
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    _openssl("req", "-new", "-key", str(key), "-subj", "/CN=sentinel test", "-out", str(request))
    _openssl(
        "ca", "-batch", "-notext", "-selfsign", "-config", str(folder / "ca.cnf"),
        "-keyfile", str(key), "-in", str(request), "-out", str(file),
        "-startdate", "19600101000000Z", "-enddate", f"{not_after:%Y%m%d%H%M%SZ}",
    )  # fmt: skip
    file.write_text(file.read_text() + key.read_text())
    return Certificate(file=file, not_after=not_after)


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
