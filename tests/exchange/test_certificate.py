"""The end of a certificate's validity, against certificates made by the openssl command."""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from certificates import issue_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentinel.exchange.certificate import not_after_s

if TYPE_CHECKING:
    from pathlib import Path

#: From two-digit years of the last century over the turn to GeneralizedTime in 2050 to the last.
DATES = st.datetimes(
    min_value=datetime(1960, 1, 2),  # noqa: DTZ001  (hypothesis adds the zone)
    max_value=datetime(9999, 12, 31, 23, 59, 59),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(date=DATES)
def test_any_date_is_read_as_openssl_wrote_it(date: datetime, tmp_path: Path) -> None:
    """UTCTime and GeneralizedTime, to the second."""
    date = date.replace(microsecond=0)
    assert not_after_s(_der(issue_until(tmp_path, date).file)) == date.timestamp()


@pytest.mark.parametrize(
    "date",
    [
        datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2000, 1, 1, tzinfo=UTC),
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
    ],
)
def test_the_turns_of_the_two_digit_year(date: datetime, tmp_path: Path) -> None:
    """RFC 5280, section 4.1.2.5.1: years 50 to 99 are of the last century."""
    assert not_after_s(_der(issue_until(tmp_path, date).file)) == date.timestamp()


@pytest.fixture(scope="module")
def der(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One whole certificate."""
    folder = tmp_path_factory.mktemp("certificate")
    return _der(issue_until(folder, datetime(2040, 1, 1, tzinfo=UTC)).file)


def test_every_truncation_is_refused(der: bytes) -> None:
    """A cut certificate is a ValueError, wherever it is cut."""
    for length in range(len(der)):
        with pytest.raises(ValueError, match="certificate"):
            not_after_s(der[:length])


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=64))
def test_garbage_is_refused(data: bytes) -> None:
    """Any bytes give a ValueError and nothing else."""
    with pytest.raises(ValueError, match="certificate"):
        not_after_s(data)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_gives_another_date(der: bytes, data: st.DataObject) -> None:
    """Whatever one byte becomes, nothing but a ValueError is raised."""
    damaged = bytearray(der)
    damaged[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        assert isinstance(not_after_s(bytes(damaged)), float)


def _der(file: Path) -> bytes:
    pem = file.read_text()
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----BEGIN EC")].strip())
