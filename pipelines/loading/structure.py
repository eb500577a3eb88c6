"""Whether a file's own bookkeeping is whole: DALI's parsers fail on a broken one, and may take the process with them.

In a batch, a JPEG with bytes between its segments ends DALI 2.4 with a segmentation fault in most runs, where Pillow
reads on. So the scan walks the segments of every file that DALI is to read itself.
"""

JPEG_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xDA), 0xFF))  # none belongs before the first scan
JPEG_FRAMES = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended, progressive


def is_whole(data: bytes, kind: str) -> bool:
    """Tell whether the segments of a JPEG, or the chunks of a PNG or WebP, follow one another to their end."""
    if kind == "JPEG":
        return _jpeg(data)
    if kind == "PNG":
        return _png(data)
    return kind == "WEBP" and _webp(data)


def _jpeg(data: bytes) -> bool:
    place, frames = 2, 0
    while place + 4 <= len(data):
        if data[place] != 0xFF or data[place + 1] in JPEG_WITHOUT_LENGTH:
            return False
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if length < 2:
            return False
        if marker == 0xDA:  # the first scan: from here libjpeg reads, in DALI too
            return frames == 1
        frames += marker in JPEG_FRAMES
        place += 2 + length
    return False


def _png(data: bytes) -> bool:
    place, names = 8, [b""]
    while place + 12 <= len(data):
        length, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        names.append(name)
        place += 12 + length
        if name == b"IEND":
            first = names[1] == b"IHDR" and names.count(b"IHDR") == 1
            return first and place <= len(data) and all(name.isalpha() for name in names[1:])
    return False


def _webp(data: bytes) -> bool:
    # The simple format alone, one chunk without metadata: all that DALI's documentation promises.
    length = int.from_bytes(data[16:20], "little")
    end = 8 + int.from_bytes(data[4:8], "little")
    return data[12:16] in (b"VP8 ", b"VP8L") and 20 + length + length % 2 == end <= len(data)
