"""Clips made by the tests: which frames are used, and broken files; the contract is in test_contract.py."""

import io
from collections.abc import Iterator
from types import SimpleNamespace

import av
import numpy as np
import pytest

from recspark.encoders import image, video
from recspark.encoders.batches import Unreadable
from tests.encoders import tiny


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> video.VideoEncoder:
    return video.load(str(tiny.build("vit", tmp_path_factory.mktemp("models") / "vit")), device="cpu", num_frames=4)


def flat(level: int) -> np.ndarray:
    """A frame of one grey, which a codec keeps to a few levels."""
    return np.full((32, 48, 3), level, dtype=np.uint8)


def levels(frames: list) -> list[int]:
    """The nearest multiple of 10 of each frame's mean."""
    return [round(float(np.asarray(frame).mean()) / 10) for frame in frames]


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "mpeg4"), ("matroska", "mpeg4"), ("avi", "mpeg4"), ("mp4", "libx264"), ("webm", "libvpx")],
)
@pytest.mark.parametrize("gop", [1, 7, 100])  # key frames: each, some, the first alone
def test_the_middle_frame_of_each_part(container, codec, gop):
    cell = tiny.clip([flat(10 * level) for level in range(3, 23)], container, codec, gop=gop)
    # 20 frames in 4 parts of 5: 3 4 |5| 6 7, then 5 further each
    assert levels(video.decode(cell, 4)) == [5, 10, 15, 20]


def test_a_clip_of_fewer_frames_gives_all():
    assert levels(video.decode(tiny.clip([flat(50), flat(150)]), 8)) == [5, 15]


def test_middles_by_hand():
    assert video.middles([], 3) == []
    assert video.middles([7], 3) == [7]
    assert video.middles(list(range(10)), 3) == [1, 5, 8]  # 10/6 = 1.7, 30/6 = 5, 50/6 = 8.3


def test_frames_are_rgb_not_bgr():
    red = np.zeros((32, 48, 3), dtype=np.uint8)
    red[:, :, 0] = 255
    found = np.asarray(video.decode(tiny.clip([red] * 2), 1)[0]).mean(axis=(0, 1))
    assert found[0] > 200 and found[1] < 50 and found[2] < 50


def test_version_is_not_that_of_the_image_encoder(encoder, tmp_path):
    folder = str(tiny.build("vit", tmp_path / "vit"))
    assert encoder.version == image.load(folder, device="cpu").version + "+4frames"
    assert video.load(folder, device="cpu", num_frames=5).version != encoder.version


def test_broken_files_have_reasons_and_do_not_affect_others(encoder):
    whole = tiny.clip([tiny.picture(i, 64, 48) for i in range(12)])
    sound = tiny.wav(tiny.tone(440, 0.3))
    vectors, reasons = encoder.encode_with_reasons([whole, b"", whole[: len(whole) // 2], sound, bytes(1000), whole])
    short = [None if why is None else why.removeprefix("item video: ") for why in reasons]
    broken = "cannot be decoded"
    assert short == [None, "empty", broken, broken, broken, None]
    np.testing.assert_array_equal(vectors.any(axis=1), [True, False, False, False, False, True])
    np.testing.assert_allclose(vectors[0], vectors[-1], atol=1e-6)


def test_frames_that_are_too_large(monkeypatch):
    cell = tiny.clip([flat(50)] * 2)
    monkeypatch.setattr(image, "MAX_PIXELS", 32 * 48 - 1)
    with pytest.raises(Unreadable, match="too large"):
        video.decode(cell, 2)


def test_a_stream_whose_frames_change_their_size(monkeypatch):
    """Two clips of MPEG-TS after each other are one file. Frames of both sizes are used, but none above the limit,
    although the file says the size of the first."""
    small, large = flat(50), np.full((320, 480, 3), 150, dtype=np.uint8)
    cell = b"".join(tiny.clip([frame] * 10, "mpegts", "libx264") for frame in (small, large))
    assert {frame.size for frame in video.decode(cell, 8)} <= {(48, 32), (480, 320)}
    monkeypatch.setattr(image, "MAX_PIXELS", 480 * 320 - 1)
    with pytest.raises(av.error.InvalidDataError):
        video.decode(cell, 8)


def test_a_clip_without_frames(encoder, monkeypatch):
    cell = tiny.clip([flat(50)] * 2)
    monkeypatch.setattr(video, "_frames_at", lambda *_: iter(()))
    vectors, reasons = encoder.encode_with_reasons([cell])
    assert not vectors.any() and reasons == ["item video: cannot be decoded"]


@pytest.mark.parametrize(
    "playlist",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n%s/secret.mp4\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '%s/secret.mp4'\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n# %s",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>%s/</BaseURL></MPD>',
    ],
)
def test_a_playlist_opens_nothing(encoder, tmp_path, playlist):
    (tmp_path / "secret.mp4").write_bytes(tiny.clip([flat(50)] * 3))
    assert encoder.encode_with_reasons([playlist % bytes(tmp_path)])[1] == ["item video: cannot be decoded"]


def test_another_file_is_not_read(encoder, tmp_path, monkeypatch):
    (tmp_path / "secret.mp4").write_bytes(tiny.clip([flat(50)] * 3))
    monkeypatch.chdir(tmp_path)
    playlist = b"ffconcat version 1.0\nfile secret.mp4\n"
    with av.open(io.BytesIO(playlist)) as container:
        assert len(list(container.decode(video=0))) == 3  # as PyAV opens it
    assert encoder.encode_with_reasons([playlist])[1] == ["item video: cannot be decoded"]


class Tape:
    """Frames at 0, 1, 2, ..., of which every tenth is a key frame; notes what is sought and decoded."""

    def __init__(self) -> None:
        self.place, self.sought, self.decoded = 0, [], []

    def seek(self, time: int, stream: object) -> None:
        self.place = time // 10 * 10
        self.sought.append(time)

    def decode(self, stream: object) -> Iterator[SimpleNamespace]:
        for time in range(self.place, 100):
            self.decoded.append(time)
            yield SimpleNamespace(pts=time)


def test_nothing_is_decoded_up_to_the_last_key_frame():
    tape = Tape()
    found = list(video._frames_at(tape, None, [12, 55, 57], keys=list(range(0, 100, 10))))
    assert [frame.pts for frame in found] == [12, 55, 57]
    assert tape.sought == [12, 55]  # 57 has no key frame of its own
    assert tape.decoded == [10, 11, 12, 50, 51, 52, 53, 54, 55, 56, 57]
