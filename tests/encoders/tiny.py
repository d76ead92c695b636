"""Models of every family that the encoders know, tiny and with random weights, saved as folders; and their inputs."""

import io
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["red", "green", "lamp", "mug", "Red"]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = SHAPE | {"vocab_size": 9, "max_position_embeddings": 12}
# The kernels and strides of the published models, so that a frame is the same 20 ms.
SPEECH = SHAPE | {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
T5 = hf.T5Config(vocab_size=9, decoder_start_token_id=0, d_model=16, d_ff=32, d_kv=8, num_layers=2, num_heads=2)


def _speech(model: type, config: type, norm: str) -> Any:
    return model(config(**SPEECH, vocab_size=9, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer"))


MODELS: dict[str, Callable[[], Any]] = {
    "bert": lambda: hf.BertModel(hf.BertConfig(**TEXT)),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**TEXT, pad_token_id=1, bos_token_id=2, eos_token_id=3)),
    "distilbert": lambda: hf.DistilBertModel(
        hf.DistilBertConfig(vocab_size=9, max_position_embeddings=12, dim=16, hidden_dim=32, n_layers=2, n_heads=2)
    ),
    "ernie": lambda: hf.ErnieModel(hf.ErnieConfig(**TEXT)),
    "t5": lambda: hf.T5ForConditionalGeneration(T5),  # whole, with the decoder that no vector needs
    "t5-encoder": lambda: hf.T5EncoderModel(T5),
    "gpt2": lambda: hf.GPT2Model(
        hf.GPT2Config(vocab_size=9, n_positions=12, n_embd=16, n_layer=2, n_head=2, bos_token_id=3, eos_token_id=3)
    ),
    "llama": lambda: hf.LlamaModel(hf.LlamaConfig(**TEXT, bos_token_id=2, eos_token_id=3)),
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**SHAPE, image_size=32, patch_size=8)),
    "beit": lambda: hf.BeitModel(hf.BeitConfig(**SHAPE, image_size=32, patch_size=8)),
    "resnet": lambda: hf.ResNetModel(
        hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ),
    "wav2vec2": lambda: _speech(hf.Wav2Vec2Model, hf.Wav2Vec2Config, "group"),
    "wav2vec2-layer": lambda: _speech(hf.Wav2Vec2Model, hf.Wav2Vec2Config, "layer"),
    "hubert": lambda: _speech(hf.HubertModel, hf.HubertConfig, "group"),
    "unispeech": lambda: _speech(hf.UniSpeechModel, hf.UniSpeechConfig, "group"),
    "ast": lambda: hf.ASTModel(hf.ASTConfig(**SHAPE, max_length=64, num_mel_bins=32)),
}
PREPARE: dict[str, Callable[[], Any]] = {  # the processors of the inputs; texts have `ENDS`
    **dict.fromkeys(("vit", "beit"), lambda: hf.ViTImageProcessorPil(size={"height": 32, "width": 32})),
    "resnet": lambda: hf.ConvNextImageProcessorPil(size={"shortest_edge": 32}),
    **dict.fromkeys(("wav2vec2", "hubert", "unispeech"), hf.Wav2Vec2FeatureExtractor),
    "wav2vec2-layer": lambda: hf.Wav2Vec2FeatureExtractor(return_attention_mask=True),
    "ast": lambda: hf.ASTFeatureExtractor(max_length=64, num_mel_bins=32),
}
ENDS = {  # the tokens around a text, and whether the tokenizer has padding
    "bert": ("[CLS] $A [SEP]", True),
    "roberta": ("[CLS] $A [SEP]", True),
    "distilbert": ("[CLS] $A [SEP]", True),
    "ernie": ("[CLS] $A [SEP]", True),
    "t5": ("$A [SEP]", True),
    "t5-encoder": ("$A [SEP]", True),
    "gpt2": ("$A", False),
    "llama": ("[CLS] $A", False),
}


def build(family: str, folder: Path) -> Path:
    """A folder with weights and the processor of the inputs, as save_pretrained writes it."""
    hf.set_seed(1)
    model = MODELS[family]().eval()
    with torch.no_grad():
        for weight in model.parameters():  # some begin as zeros or ones, which would hide their part
            weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    if family in ENDS:
        save_tokenizer(folder, *ENDS[family])
    else:
        PREPARE[family]().save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, ends: str = "[CLS] $A [SEP]", pads: bool = True) -> None:
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=ends, special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]") if token in ends]
    )
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"} | (
        {"pad_token": "[PAD]"} if pads else {}
    )
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def wav(channels: np.ndarray | Sequence[np.ndarray], rate: int = 16_000) -> bytes:
    """A WAV file of 16 bits from waves in [-1, 1], one a channel."""
    samples = np.round(np.atleast_2d(channels).T * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def tone(hertz: float, seconds: float, rate: int = 16_000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def picture(seed: int, width: int = 40, height: int = 30) -> np.ndarray:
    """uint8 (height, width, 3): noise, smooth enough for JPEG and video codecs to keep it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((-(-height // 5), -(-width // 5), 1), dtype=np.uint8))[:height, :width]


def clip(
    frames: Sequence[np.ndarray], container: str = "mp4", codec: str = "mpeg4", rate: int = 10, gop: int = 12
) -> bytes:
    """A video file of the frames, a key frame every `gop`."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as writer:
        stream = writer.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        for frame in frames:
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        writer.mux(stream.encode())
    return file.getvalue()
