"""Which size does a compressed image declare? It is read before a decoder allocates memory for it."""

from __future__ import annotations

_JPEG_SIZE_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOFn, and SOF55 of JPEG-LS
_STANDALONE = {0x01, *range(0xD0, 0xDA)}
_MAX_SEGMENTS = 1000


def declared_size(codestream: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 codestream declares.

    Returns
    -------
    tuple of int or None
        ``None`` for any other codestream (RLE has no such header), or if no size is found.
    """
    if codestream[:4] == b"\xff\x4f\xff\x51":
        return _jpeg_2000(codestream)
    if codestream[4:8] == b"jP  ":  # a JP2 file around the codestream
        start = codestream.find(b"\xff\x4f\xff\x51")
        return _jpeg_2000(codestream[start:]) if start > 0 else None
    if codestream[:2] == b"\xff\xd8":
        return _jpeg(codestream)
    return None


def _jpeg_2000(data: bytes) -> tuple[int, int] | None:
    """SIZ marker segment, ISO/IEC 15444-1 A.5.1: reference grid size less the image offset."""
    if len(data) < 24:
        return None
    width, height, left, top = (int.from_bytes(data[n : n + 4], "big") for n in (8, 12, 16, 20))
    return height - top, width - left


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Frame header, ISO/IEC 10918-1 B.2.2 and 14495-1 C.2.2."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif marker in _JPEG_SIZE_MARKERS:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
