"""When a certificate ends, read from its DER form.

The ssl module decodes only certificates that it has verified, and an expiry is worth knowing of the
others as well. So the four steps to the date are walked here (RFC 5280, section 4.1):

    Certificate    ::= SEQUENCE { tbsCertificate, ... }
    tbsCertificate ::= SEQUENCE { [0] version OPTIONAL, serialNumber, signature, issuer,
                                   validity, ... }
    validity       ::= SEQUENCE { notBefore, notAfter }
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_TIMES: Final = {
    _UTC_TIME: re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z"),  # UTCTime
    0x18: re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z"),  # GeneralizedTime
}
_LENGTH_BYTES_MAX: Final = 4
#: RFC 5280, section 4.1.2.5.1: two-digit years from 50 on are of the last century.
_CENTURY_PIVOT: Final = 50


def not_after_s(der: bytes) -> float:
    """Return the end of validity in seconds of Unix time; raises ValueError on malformed bytes."""
    certificate = _content(der, _SEQUENCE)
    to_be_signed = _content(certificate, _SEQUENCE)
    if to_be_signed[:1] == bytes((_VERSION,)):
        to_be_signed = _after(to_be_signed)
    for _field in ("serialNumber", "signature", "issuer"):
        to_be_signed = _after(to_be_signed)
    validity = _content(to_be_signed, _SEQUENCE)
    return _time_s(_after(validity))


def _header(data: bytes) -> tuple[int, int, int]:
    """Return the first element's tag and where its content begins and ends."""
    if len(data) < 2:  # noqa: PLR2004  (a tag and a length)
        raise ValueError("certificate: an element is cut off")
    tag, begin, length = data[0], 2, data[1]
    if length & 0x80:
        size = length & 0x7F
        if not 0 < size <= _LENGTH_BYTES_MAX:
            raise ValueError("certificate: a length is not of DER")
        begin += size
        length = int.from_bytes(data[2:begin], "big")
    if begin + length > len(data):
        raise ValueError("certificate: an element is cut off")
    return tag, begin, begin + length


def _content(data: bytes, expected_tag: int) -> bytes:
    tag, begin, end = _header(data)
    if tag != expected_tag:
        raise ValueError(f"certificate: tag {tag:#04x} where {expected_tag:#04x} belongs")
    return data[begin:end]


def _after(data: bytes) -> bytes:
    return data[_header(data)[2] :]


def _time_s(data: bytes) -> float:
    """Read YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ, the only forms RFC 5280 allows."""
    tag, begin, end = _header(data)
    found = _TIMES[tag].fullmatch(data[begin:end]) if tag in _TIMES else None
    if found is None:
        raise ValueError(f"certificate: tag {tag:#04x} holds no time")
    year, month, day, hour, minute, second = map(int, found.groups())
    if tag == _UTC_TIME:
        year += 1900 if year >= _CENTURY_PIVOT else 2000
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
