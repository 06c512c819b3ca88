"""A file that the first edition of the SQLite store has written, byte by byte.

1: put jobs/a {"n": 1}, users/ü ["x", None] in the namespace "team"; compacted
2: put jobs/a {"n": 2}, jobs/b 1.5, jobs/b 2
3: delete jobs/missing, put jobs/c "text"
4: delete jobs/c
5: put users/v True
"""

import base64
import zlib
from pathlib import Path

from trio_stream import Cursor

EPOCH = "a73263ad071846075d41182db1d5d4d4"
MARKS = {
    1: "6f4fbad07897b1a1",
    2: "e5a444cb808c2ec5",
    3: "1bde6184e4593f19",
    4: "4de2bac6b6e9a852",
    5: "4625c6505f4a7c87",
}

_FILE = (
    "eNrt2c9r02AYB/CkPzZWWKPMUrU7vEaEFeK2dj/Rg26uarWzW+3YSg0jbd5tdWlTkrRUVLAqePE8z8IQb+LFw/Am7qAHvXjx4EFU8H/w4JtYWd"
    "vNgaAD5fshb/L26fu8T960l769PJsoWJQs6UZRscgQt49zubjThHAc52bNy22xX3safTvON/q8ZRRMbmdurj/Pd9ud7m+cMOt/zy4AAAAAAACw"
    "x+pZd2cwGOTvBCwlp1HTUqwfJ++ZVGwiHSPpiclEjDgh0ucjjKWXC3mSji2kyaUka3OJhERKSpGaZSVP299YpdfaQs4kVUWrbBsrFkoqrYkkfi"
    "kdOxdLtaXMpOLTE6kMuRjLkD7nJprKOoXCvjCZj6fPJ+fSJJWcj09VXJ3Bnh6+PussTtOX2eFpWRgLNJbVXrypnESKirFKJhPJyaa71cvUUKyC"
    "XjJb1+EL1yW+MxgI8LdPOnVXqKLazd1S2Y40SlepYbJ5tq+b0LKeX/m9x7Sk6bqxw1ROfHH7Qnxh50f81gkAAAAAAAAA/kP2f/O88IZjBwAAAA"
    "AAAAD8Gwb4jq5pvqtXGRuKjg4p6uBYZHx4dHBsRB2ORMajai6isq467NWTG29rD54+7BbWOY/f4oQB/zv/I7/FugAAAAAAAAB/xKDXw/XOnT22"
    "ObN44ca9bFYsVyxREismNUx2VemSUtHsSFWULKNCZfm4h2Ukpz9ubD77+jjFMlSqUYuyIVf1XGtOXpTlBbeX660fDX1Q7n7KnDq06/hiwTQLpW"
    "VRln7exw5TSqJFaxab2XTZM2c+r0+9vnW//2X2lzmKKF0XS+KJ6M1dJs6JUqR/ZPcBUVlmj+zK3/osfKx5hDWv8ET4IqwJr/DtBAAAAAAAANgr"
    "BzuCISHAOzsijd2Aqr0T4j3cEQgJId7eKGjElcY2gyvUEQzsP9Ll5FhUKb54nhVrolSqaJp8wE4TmtNyUZdT6TsZTjT8"
)


def write_first_edition(path: Path) -> Path:
    """Makes the file."""
    path.write_bytes(zlib.decompress(base64.b64decode(_FILE)))
    return path


def cursor(index: int) -> Cursor:
    """What a client had kept that was as far as this commit."""
    return Cursor(index, EPOCH, MARKS[index])
