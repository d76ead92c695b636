"""Open audio and video files (as bytes) of many formats with PyAV; nothing outside the bytes is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

# No playlists (HLS, concat): they name other files and addresses, which the decoder would open.
FORMATS = "wav,w64,aiff,au,caf,ogg,flac,mp3,aac,mov,matroska,avi,mpegts,mpeg,flv,asf"


@contextmanager
def open_stream(cell: bytes, kind: str) -> Iterator[tuple[Any, Any]]:
    """(container, its first stream of `kind`, "audio" or "video").

    Raises: IndexError where there is no such stream.
    """
    import av

    with av.open(BytesIO(cell), options={"format_whitelist": FORMATS}) as container:
        yield container, getattr(container.streams, kind)[0]
