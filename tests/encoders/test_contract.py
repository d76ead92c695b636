"""The contract of every encoder, compared with the direct use of transformers, on tiny models with random weights."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file

from recspark.encoders import audio, image, text, video
from recspark.errors import ConfigError
from tests.encoders import tiny


@dataclass(frozen=True)
class Kind:
    """A modality: cells of different lengths, one that cannot be read, and the same vector from transformers itself."""

    module: ModuleType
    cells: list[Any]
    broken: bytes
    reason: str
    direct: Callable[[Path, Any], np.ndarray]
    limits: dict[str, Any]  # of the module, for batches of one


@lru_cache
def hugging_face(auto: str, folder: Path, **options: Any) -> Any:
    found = getattr(hf, auto).from_pretrained(folder, **options)
    return found.eval() if isinstance(found, torch.nn.Module) else found


@torch.inference_mode()
def direct_text(folder: Path, cell: str) -> np.ndarray:
    inputs = hugging_face("AutoTokenizer", folder)(cell, return_tensors="pt")
    model = hugging_face("T5EncoderModel" if folder.name.startswith("t5") else "AutoModel", folder)
    states = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state[0].numpy()
    vector = states[-1] if folder.name in ("gpt2", "llama") else states.mean(axis=0)
    return vector / np.linalg.norm(vector)


@torch.inference_mode()
def direct_image(folder: Path, cell: bytes) -> np.ndarray:
    inputs = hugging_face("AutoImageProcessor", folder, backend="pil")(
        images=Image.open(io.BytesIO(cell)), return_tensors="pt"
    )
    states = hugging_face("AutoModel", folder)(**inputs)
    vector = states.pooler_output[0, :, 0, 0] if folder.name == "resnet" else states.last_hidden_state[0, 0]
    return vector.numpy()


@torch.inference_mode()
def direct_audio(folder: Path, cell: bytes) -> np.ndarray:
    samples = np.frombuffer(cell[44:], dtype="<i2").astype(np.float32) / 32768  # a WAV header has 44 bytes
    inputs = hugging_face("AutoFeatureExtractor", folder)(samples, sampling_rate=16_000, return_tensors="pt")
    states = hugging_face("AutoModel", folder)(**inputs)
    vector = states.pooler_output if folder.name == "ast" else states.last_hidden_state.mean(dim=1)
    return vector[0].numpy()


def direct_video(folder: Path, cell: bytes) -> np.ndarray:
    import av

    with av.open(io.BytesIO(cell)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    # the middle of 8 parts of n frames: of 8 each one, of 24 those at 24 * (2i + 1) // 16, of 3 all
    chosen = {3: [0, 1, 2], 8: range(8), 24: [1, 4, 7, 10, 13, 16, 19, 22]}[len(frames)]
    return np.mean([direct_image(folder, png(frames[i])) for i in chosen], axis=0)


def png(picture: Image.Image | np.ndarray) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, "PNG")
    return file.getvalue()


TEXT = Kind(
    text, ["red lamp", "mug", "green lamp green mug red", "red lamp"], b"\xff red", "item text: not UTF-8",
    direct_text, {"TOKENS_PER_BATCH": {"cpu": 1}, "TEXTS_PER_CHUNK": 1},
)  # fmt: skip
IMAGE = Kind(
    image, [png(tiny.picture(seed, 20 + 9 * seed, 50 - 8 * seed)) for seed in (0, 1, 2, 3)], b"no image",
    "item image: cannot be decoded", direct_image, {"IMAGES_PER_BATCH": 1},
)  # fmt: skip
AUDIO = Kind(
    audio, [tiny.wav(tiny.tone(200 * i, seconds)) for i, seconds in enumerate((0.3, 0.55, 0.1, 0.55, 0.9), 1)],
    b"no sound", "item audio: cannot be decoded", direct_audio, {"CLIPS_PER_BATCH": 1, "CLIPS_PER_CHUNK": 1},
)  # fmt: skip
VIDEO = Kind(
    video, [tiny.clip([tiny.picture(100 * n + i) for i in range(n)]) for n in (8, 24, 3)], b"no video",
    "item video: cannot be decoded", direct_video, {"CLIPS_PER_CHUNK": 1},
)  # fmt: skip
ENCODERS = {
    **dict.fromkeys(("bert", "roberta", "distilbert", "ernie", "t5", "t5-encoder", "gpt2", "llama"), TEXT),
    **dict.fromkeys(("vit", "resnet"), IMAGE),
    **dict.fromkeys(("wav2vec2", "wav2vec2-layer", "hubert", "ast"), AUDIO),
    "vit of frames": VIDEO,
}
each = pytest.mark.parametrize("family", ENCODERS)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def folder(family: str) -> Path:
        family = family.removesuffix(" of frames")
        if family not in built:
            built[family] = tiny.build(family, tmp_path_factory.mktemp("models") / family)
        return built[family]

    return folder


@pytest.fixture(scope="module")
def encoder_of(folder_of: Callable[[str], Path]) -> Callable[[str], Any]:
    """Loaded once: a test must not change it."""
    return lru_cache(lambda family: ENCODERS[family].module.load(str(folder_of(family)), device="cpu"))


@pytest.fixture
def copy_of(folder_of: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """The family's folder with its weights changed by a function."""

    def copy(family: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
        for file in folder_of(family).iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        weights = change(load_file(tmp_path / "model.safetensors"))
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
        return tmp_path

    return copy


@each
def test_same_vectors_as_transformers_called_directly(family, folder_of, encoder_of):
    kind, folder, encoder = ENCODERS[family], folder_of(family), encoder_of(family)
    found = encoder.encode(kind.cells)
    assert found.dtype == np.float32 and found.shape == (len(kind.cells), encoder.dim) == (len(kind.cells), 16)
    expected = [kind.direct(folder, cell) for cell in kind.cells]
    assert np.abs(found[0] - found[1]).max() > 1e-3  # not all the same
    np.testing.assert_allclose(found, expected, atol=1e-5)


@each
def test_order_padding_and_batch_size_change_only_rounding(family, encoder_of, monkeypatch):
    kind, encoder = ENCODERS[family], encoder_of(family)
    together = encoder.encode(kind.cells)
    np.testing.assert_allclose(encoder.encode(kind.cells[::-1]), together[::-1], atol=1e-5)
    np.testing.assert_allclose([encoder.encode([cell])[0] for cell in kind.cells], together, atol=1e-5)
    for name, value in kind.limits.items():
        monkeypatch.setattr(kind.module, name, value)
    np.testing.assert_allclose(encoder.encode(kind.cells), together, atol=1e-5)


@each
def test_what_cannot_be_read_has_a_reason_and_the_rest_goes_on(family, encoder_of):
    kind, encoder = ENCODERS[family], encoder_of(family)
    vectors, reasons = encoder.encode_with_reasons([kind.cells[0], kind.broken, None, kind.cells[1]])
    assert reasons == [None, kind.reason, None, None]
    np.testing.assert_array_equal(vectors.any(axis=1), [True, False, False, True])
    np.testing.assert_allclose(vectors[[0, 3]], encoder.encode(kind.cells[:2]), atol=1e-5)
    assert encoder.encode([]).shape == (0, 16) and not encoder.encode([None]).any()


@each
def test_deterministic(family, folder_of, encoder_of):
    kind, encoder = ENCODERS[family], encoder_of(family)
    fresh = kind.module.load(str(folder_of(family)), device="cpu")
    first = encoder.encode(kind.cells)
    np.testing.assert_array_equal(encoder.encode(kind.cells), first)
    np.testing.assert_array_equal(fresh.encode(kind.cells), first)
    assert encoder.version == fresh.version


@each
def test_version_follows_the_weights_and_nan_is_null(family, encoder_of, copy_of):
    kind = ENCODERS[family]
    nan = copy_of(family, lambda weights: {key: value * torch.nan for key, value in weights.items()})
    encoder = kind.module.load(str(nan), device="cpu")
    assert encoder.version.split("@")[1] != encoder_of(family).version.split("@")[1]
    vectors, reasons = encoder.encode_with_reasons([None, kind.cells[0]])
    assert not vectors.any() and reasons == [None, kind.reason.split(":", maxsplit=1)[0] + ": vector not finite"]


@each
def test_random_weights_are_refused(family, copy_of):
    folder = copy_of(family, lambda weights: {key: weights[key] for key in list(weights) if ".1." not in key})
    with pytest.raises(ConfigError, match=r"lacks \d+ weights .* would be random"):
        ENCODERS[family].module.load(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("kind", "other"),
    [(TEXT, "vit"), (TEXT, "hubert"), (IMAGE, "gpt2"), (IMAGE, "hubert"), (AUDIO, "gpt2"), (AUDIO, "vit"),
     (VIDEO, "gpt2")],
    ids=lambda value: value if isinstance(value, str) else value.module.__name__,
)  # fmt: skip
def test_a_model_of_another_kind_is_refused(kind, other, folder_of):
    wanted = {"text": "texts", "audio": "audio"}.get(kind.module.__name__.rsplit(".")[-1], "images")
    with pytest.raises(ConfigError, match=rf"is of type '{other}' for \w+, expected one for {wanted}"):
        kind.module.load(str(folder_of(other)), device="cpu")


@pytest.mark.parametrize(("kind", "stranger"), [(IMAGE, "beit"), (AUDIO, "unispeech")])
def test_a_type_whose_vector_is_not_known_is_refused(kind, stranger, folder_of):
    """Of the right kind, and refused all the same: which of its states is the vector would be a guess."""
    with pytest.raises(ConfigError, match=f"is of type '{stranger}', expected one of"):
        kind.module.load(str(folder_of(stranger)), device="cpu")


@pytest.mark.parametrize(("kind", "library"), [(IMAGE, "PIL"), (AUDIO, "av"), (VIDEO, "av")])
def test_without_the_extra_it_says_what_to_install(kind, library, monkeypatch):
    from importlib import util

    found = util.find_spec
    monkeypatch.setattr("recspark.encoders.load.find_spec", lambda name: None if name == library else found(name))
    with pytest.raises(ConfigError, match=rf"needs the library {library}; run `pip install recspark\[media\]`"):
        kind.module.load("anything", device="cpu")
