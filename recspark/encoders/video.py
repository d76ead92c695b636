"""Videos (files as bytes) to vectors: the mean of an image encoder's vectors of evenly spaced frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recspark.arrays import Array
from recspark.encoders import image
from recspark.encoders.batches import TOO_LARGE, UNDECODABLE, Cell, Encoded, Unreadable, encode_cells
from recspark.encoders.containers import open_stream
from recspark.encoders.load import need
from recspark.encoders.weights import VIDEO_FRAMES

if TYPE_CHECKING:
    from PIL import Image

CLIPS_PER_CHUNK = 4  # as many images as a batch of the image encoder: 4 x 8


@dataclass(frozen=True)
class VideoEncoder:
    """An image encoder for `num_frames` frames. `version` names its weights and that number."""

    version: str
    dim: int
    num_frames: int
    images: image.ImageEncoder

    def encode(self, clips: Sequence[Cell]) -> Array:
        """float32 (n, dim) in the order of `clips`; a row of zeros for null and for what cannot be decoded."""
        return self.encode_with_reasons(clips)[0]

    def encode_with_reasons(self, clips: Sequence[Cell]) -> Encoded:
        """As `encode`, and a reason for every clip without a vector that is not null, such as `item video: empty`."""
        return encode_cells(clips, self._read, self._forward, self.dim, CLIPS_PER_CHUNK, "video")

    def _read(self, cell: bytes) -> list[Array]:
        return [self.images.prepare(frame) for frame in decode(cell, self.num_frames)]

    def _forward(self, clips: list[list[Array]]) -> Array:
        frames = self.images.forward([pixels for clip in clips for pixels in clip])
        ends = np.cumsum([len(clip) for clip in clips])[:-1]
        return np.stack([part.mean(axis=0) for part in np.split(frames, ends)])


def decode(cell: bytes, num_frames: int) -> list["Image.Image"]:
    """The frames (RGB) in the middle of `num_frames` equal parts of the clip; all frames of a clip that has fewer.

    Raises: Unreadable where there is no frame or frames are too large; PyAV's errors where the file is broken.
    """
    with open_stream(cell, "video") as (container, stream):
        if stream.width * stream.height > image.MAX_PIXELS:
            raise Unreadable(TOO_LARGE)
        stream.codec_context.options = {"max_pixels": str(image.MAX_PIXELS)}  # frames may grow within a stream
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        shown = sorted(packet.pts for packet in packets)
        keys = [packet.pts for packet in packets if packet.is_keyframe]
        wanted = middles(shown, num_frames)
        found = [frame.to_image() for frame in _frames_at(container, stream, wanted, keys)]
    if not found:
        raise Unreadable(UNDECODABLE)
    return found


def middles(times: Sequence[int], parts: int) -> list[int]:
    """The middle of each of `parts` equal parts of the sorted `times`; all times if there are not more.

    >>> middles([0, 1, 2, 3, 4, 5], 2)
    [1, 4]
    """
    parts = min(parts, len(times))
    return [times[(2 * part + 1) * len(times) // (2 * parts)] for part in range(parts)]


def _frames_at(container: Any, stream: Any, wanted: list[int], keys: list[int]) -> Iterator[Any]:
    """The frame shown at each of the sorted times; decoding starts at the last key frame before each."""
    frames: Iterator[Any] = iter(())
    reached = None
    for time in wanted:
        key = max((key for key in keys if key <= time), default=None)
        if reached is None or (key is not None and key > reached):
            container.seek(time, stream=stream)
            frames = container.decode(stream)
        for frame in frames:
            if frame.pts is not None and frame.pts >= time:
                reached = frame.pts
                yield frame
                break


def load(
    name: str, revision: str | None = None, device: str | None = None, num_frames: int = VIDEO_FRAMES
) -> VideoEncoder:
    """Load the image model `name` (see `image.load`) for videos.

    Raises: ConfigError as `image.load` does, and where PyAV is not installed.
    """
    need(name, "av")
    images = image.load(name, revision, device)
    return VideoEncoder(f"{images.version}+{num_frames}frames", images.dim, num_frames, images)
