"""Audio (files as bytes) to vectors: wav2vec 2.0, HuBERT (mean over frames) and AST (its pooled tokens).

Shapes: B clips of a batch, S samples, F frames, D dimensions; hidden_BFD, mask_BS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import torch

from recspark.arrays import Array
from recspark.encoders.batches import TOO_SHORT, UNDECODABLE, Cell, Encoded, Unreadable, encode_cells
from recspark.encoders.containers import open_stream
from recspark.encoders.load import expect_type, load_transformer, need, place
from recspark.encoders.weights import locate

MAX_SECONDS = 30  # the rest of a clip is not used: the cost of attention grows with the square of the length
CLIPS_PER_CHUNK, CLIPS_PER_BATCH = 64, 8
RATES = range(1000, 768_001)  # plausible samples per second; others would need a resampling filter of gigabytes
MEAN_OF_FRAMES, POOLED = ("wav2vec2", "hubert"), ("audio-spectrogram-transformer",)


@dataclass(frozen=True)
class AudioEncoder:
    """A loaded model. `version` names the weights' content, `dim` is the length of a vector, `rate` is in Hz."""

    version: str
    dim: int
    device: str
    rate: int
    extractor: Any
    model: Any  # of transformers

    def encode(self, clips: Sequence[Cell]) -> Array:
        """float32 (n, dim) in the order of `clips`; a row of zeros for null and for what cannot be decoded."""
        return self.encode_with_reasons(clips)[0]

    def encode_with_reasons(self, clips: Sequence[Cell]) -> Encoded:
        """As `encode`, and a reason for every clip without a vector that is not null, such as `item audio: too short`.

        The first `MAX_SECONDS` of a clip are used; AST uses the length of its extractor (10 s).
        """
        return encode_cells(clips, self._read, self._forward_all, self.dim, CLIPS_PER_CHUNK, "audio")

    def _read(self, cell: bytes) -> Array:
        wave_S = decode(cell, self.rate)
        if num_frames(self.model.config, len(wave_S)) < 1:
            raise Unreadable(TOO_SHORT)
        return wave_S

    def _forward_all(self, waves: list[Array]) -> Array:
        """(n, dim). Batches have clips of similar length; of equal length where the model cannot mask padding."""
        masks = getattr(self.model.config, "feat_extract_norm", None) == "layer"
        mixed = masks or self.model.config.model_type in POOLED  # the extractor of those gives one length anyway
        order = sorted(range(len(waves)), key=lambda row: len(waves[row]))
        vectors = np.zeros((len(waves), self.dim), dtype=np.float32)
        while order:
            rows = order[:CLIPS_PER_BATCH]
            if not mixed:  # its group norm is over time, so padding would change the result
                rows = [row for row in rows if len(waves[row]) == len(waves[order[0]])]
            vectors[rows] = self._forward([waves[row] for row in rows], masks)
            order = order[len(rows) :]
        return vectors

    @torch.inference_mode()
    def _forward(self, waves: list[Array], masks: bool) -> Array:
        config = self.model.config
        options = {} if config.model_type in POOLED else {"padding": True, "return_attention_mask": masks}
        inputs = self.extractor(waves, sampling_rate=self.rate, return_tensors="pt", **options)
        states = self.model(**{key: value.to(self.device) for key, value in inputs.items()})
        if config.model_type in POOLED:
            return np.asarray(states.pooler_output.cpu().numpy())
        hidden_BFD = states.last_hidden_state
        frames_B = torch.tensor([num_frames(config, len(wave)) for wave in waves], device=self.device)
        real_BF = torch.arange(hidden_BFD.shape[1], device=self.device) < frames_B.unsqueeze(1)
        return np.asarray(((hidden_BFD * real_BF.unsqueeze(-1)).sum(dim=1) / frames_B.unsqueeze(1)).cpu().numpy())


def num_frames(config: Any, samples: int) -> int:
    """Frames of a clip: by the convolutions of wav2vec 2.0 and HuBERT, or AST's windows of 25 ms, every 10 ms."""
    kernels, strides = getattr(config, "conv_kernel", (400,)), getattr(config, "conv_stride", (160,))
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def decode(cell: bytes, rate: int) -> Array:
    """float32 (S,) in [-1, 1] at `rate` Hz: the mean of the channels, at most `MAX_SECONDS`.

    Raises: Unreadable where the rate is not plausible; PyAV's errors where the file is broken or has no sound.
    """
    import av
    from scipy.signal import resample_poly

    to_float = av.AudioResampler(format="fltp")  # rate and channels stay
    parts: list[Array] = []
    with open_stream(cell, "audio") as (container, stream):
        found = stream.rate
        if found not in RATES:
            raise Unreadable(UNDECODABLE)
        room = MAX_SECONDS * found
        for frame in container.decode(stream):
            parts += [part.to_ndarray().mean(axis=0) for part in to_float.resample(frame)]
            room -= frame.samples
            if room <= 0:
                break
    wave_S = np.concatenate(parts)[: MAX_SECONDS * found] if parts else np.zeros(0, dtype=np.float32)
    if found != rate and len(wave_S):
        shared = gcd(found, rate)
        wave_S = resample_poly(wave_S, rate // shared, found // shared)
    return wave_S.astype(np.float32)


def load(name: str, revision: str | None = None, device: str | None = None) -> AudioEncoder:
    """Load the model `name` (see `weights.locate`) in float32 on `device`, by default the GPU if there is one.

    Raises: ConfigError where the model is missing, incomplete, not for audio or of a type that is not known here,
    and where PyAV is not installed.
    """
    need(name, "av")
    weights = locate(name, revision)
    extractor, model = load_transformer(name, weights.path, "input_values", "AutoFeatureExtractor")
    expect_type(name, model, MEAN_OF_FRAMES + POOLED)
    model, device = place(model, device)
    return AudioEncoder(
        version=weights.version,
        dim=model.config.hidden_size,
        device=device,
        rate=extractor.sampling_rate,
        extractor=extractor,
        model=model,
    )
