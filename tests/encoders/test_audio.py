"""Audio files of many formats, and broken ones; the contract is in test_contract.py."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from recspark.encoders import audio
from recspark.encoders.batches import Unreadable
from tests.encoders import tiny

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> audio.AudioEncoder:
    return audio.load(str(tiny.build("hubert", tmp_path_factory.mktemp("models") / "hubert")), device="cpu")


def packed(wave_S: np.ndarray, container: str, codec: str, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as writer:
        stream = writer.add_stream(codec, rate=rate, layout="mono")
        samples = np.round(wave_S * 32767).astype("<i2")[np.newaxis]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.codec_context.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            writer.mux(stream.encode(part))
        writer.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "off"),
    [("wav", "pcm_s16le", 1e-4), ("wav", "pcm_f32le", 1e-4), ("flac", "flac", 1e-4), ("ogg", "libopus", 0.05)],
)
def test_formats(container, codec, off):
    wave_S = tiny.tone(440, 0.5)
    found = audio.decode(packed(wave_S, container, codec), 16_000)
    assert found.dtype == np.float32 and abs(len(found) - len(wave_S)) <= 1024  # Opus has blocks
    shared = min(len(found), len(wave_S)) - 1024
    assert np.abs(found[1024:shared] - wave_S[1024:shared]).max() <= off


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_any_rate_gives_the_same_tone(rate):
    found = audio.decode(tiny.wav(tiny.tone(440, 0.5, rate), rate), 16_000)
    assert abs(len(found) - 8_000) <= 1
    middle = slice(1_000, 7_000)  # the ends ring, as those of any filter do
    np.testing.assert_allclose(found[middle], tiny.tone(440, 0.5)[middle], atol=2e-3)


def test_what_the_lower_rate_cannot_carry_is_filtered_out():
    found = audio.decode(tiny.wav(tiny.tone(12_000, 0.5, 48_000), 48_000), 16_000)
    assert np.abs(found[1_000:7_000]).max() < 2e-3  # not folded down to 4 kHz


def test_channels_are_averaged():
    left, right = tiny.tone(300, 0.2), tiny.tone(500, 0.2)
    np.testing.assert_allclose(audio.decode(tiny.wav([left, right]), 16_000), (left + right) / 2, atol=1e-4)


def test_only_the_first_seconds_are_used(monkeypatch):
    monkeypatch.setattr(audio, "MAX_SECONDS", 1)
    wave_S = tiny.tone(300, 2.5)
    np.testing.assert_allclose(audio.decode(tiny.wav(wave_S), 16_000), wave_S[:16_000], atol=1e-4)


def test_of_hours_in_a_small_file_seconds_are_decoded(monkeypatch):
    silence = packed(np.zeros(4_800_000), "flac", "flac", 8000)  # ten minutes
    assert len(silence) < 200_000
    decoded: list[int] = []

    class Counting:
        def __init__(self, **options: str) -> None:
            self.resampler = real(**options)

        def resample(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
            decoded.append(frame.samples)
            return self.resampler.resample(frame)

    real = av.AudioResampler
    monkeypatch.setattr(av, "AudioResampler", Counting)
    assert len(audio.decode(silence, 8000)) == audio.MAX_SECONDS * 8000
    assert sum(decoded) < (audio.MAX_SECONDS + 1) * 8000


def test_frames_of_a_clip(encoder):
    # the first kernel is 10 and the strides make 320: 400 samples for the first frame, 320 more for each other
    assert [audio.num_frames(encoder.model.config, n) for n in (399, 400, 719, 720, 16_000)] == [0, 1, 1, 2, 49]


def test_broken_files_have_reasons_and_do_not_affect_others(encoder):
    whole = tiny.wav(tiny.tone(440, 0.3))
    video_only = tiny.clip([tiny.picture(0)] * 3)
    cells = [whole, b"", whole[:30], tiny.wav(np.zeros(0)), tiny.wav(np.zeros(399)), video_only,
             whole[:24] + struct.pack("<I", 4_000_000_000) + whole[28:], bytes(1000), whole]  # fmt: skip
    vectors, reasons = encoder.encode_with_reasons(cells)
    short = [None if why is None else why.removeprefix("item audio: ") for why in reasons]
    broken = "cannot be decoded"
    assert short == [None, "empty", broken, "too short", "too short", broken, broken, broken, None]
    np.testing.assert_array_equal(vectors.any(axis=1), [True, *[False] * 7, True])
    np.testing.assert_allclose(vectors[0], vectors[-1], atol=1e-5)


def test_a_header_that_claims_ten_gigabytes_is_not_believed():
    """Recorders that do not know the length yet write the largest one; the samples in the file are used."""
    whole = tiny.wav(tiny.tone(440, 0.3))
    claimed = whole[:4] + b"\xff" * 4 + whole[8:40] + b"\xff" * 4 + whole[44:]
    np.testing.assert_allclose(audio.decode(claimed, 16_000), audio.decode(whole, 16_000), atol=1e-6)


def test_an_incomplete_wav_file_is_used_up_to_its_end():
    wave_S = tiny.tone(440, 0.3)
    found = audio.decode(tiny.wav(wave_S)[: 44 + 2 * 3000], 16_000)  # 44 bytes of header, 2 a sample
    np.testing.assert_allclose(found, wave_S[:3000], atol=1e-4)


@pytest.mark.parametrize("rate", [999, 768_001])
def test_rates_that_are_not_plausible(rate):
    with pytest.raises(Unreadable, match="cannot be decoded"):
        audio.decode(tiny.wav(np.zeros(1000), rate), 16_000)


def test_silence_has_a_vector(encoder):
    vectors, reasons = encoder.encode_with_reasons([tiny.wav(np.zeros(8000))])
    assert reasons == [None] and np.isfinite(vectors).all() and vectors.any()


@pytest.mark.parametrize("place", ["spoken-digits/*.wav", "environmental-sounds/*/*.ogg"])
def test_real_sounds_have_vectors(encoder, place):
    files = sorted(DATA.glob(place))
    if not files:
        pytest.skip(f"needs {DATA / place}")
    cells = [file.read_bytes() for file in files[:: len(files) // 4]]
    vectors, reasons = encoder.encode_with_reasons(cells)
    assert reasons == [None] * len(cells) and np.isfinite(vectors).all() and vectors.any(axis=1).all()
    assert len(np.unique(vectors.round(5), axis=0)) == len(cells)
