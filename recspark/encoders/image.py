"""Images (files as bytes) to vectors: ViT's class token or ResNet's pooled map.

Shapes: B images of a batch, C channels, H x W pixels, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recspark.arrays import Array
from recspark.encoders.batches import TOO_LARGE, Cell, Encoded, Unreadable, encode_cells
from recspark.encoders.load import expect_type, load_transformer, need, place
from recspark.encoders.weights import locate
from recspark.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

IMAGES_PER_BATCH = 32
MAX_PIXELS = 50_000_000  # 150 MB when decoded; more is a mistake or an attack
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # none that starts other programs, as EPS does
CLASS_TOKEN, POOLED = ("vit",), ("resnet",)  # which state of which model type is the vector


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded model. `version` names the weights' content, `dim` is the length of a vector."""

    version: str
    dim: int
    device: str
    processor: Any
    model: Any  # of transformers

    def encode(self, images: Sequence[Cell]) -> Array:
        """float32 (n, dim) in the order of `images`; a row of zeros for null and for what cannot be decoded."""
        return self.encode_with_reasons(images)[0]

    def encode_with_reasons(self, images: Sequence[Cell]) -> Encoded:
        """As `encode`, and a reason for every image without a vector that is not null, such as `item image: empty`."""
        return encode_cells(images, self._read, self.forward, self.dim, IMAGES_PER_BATCH, "image")

    def _read(self, cell: bytes) -> Array:
        return self.prepare(decode(cell))

    def prepare(self, image: "Image.Image") -> Array:
        """float32 (C, H, W) of the model's size, from an RGB image."""
        return np.asarray(self.processor(images=image, return_tensors="np")["pixel_values"][0], dtype=np.float32)

    @torch.inference_mode()
    def forward(self, pixels: Sequence[Array]) -> Array:
        """float32 (B, dim) from the results of `prepare`."""
        states = self.model(pixel_values=torch.from_numpy(np.stack(pixels)).to(self.device))
        pooled = self.model.config.model_type in POOLED
        vectors_BD = states.pooler_output.flatten(1) if pooled else states.last_hidden_state[:, 0]
        return np.asarray(vectors_BD.cpu().numpy())


def decode(cell: bytes) -> "Image.Image":
    """An upright RGB image from a file: transparent parts on white; the first frame of an animation.

    Raises: Unreadable where it is too large; Pillow's errors where it is broken or incomplete.
    """
    from PIL import Image, ImageOps

    try:
        image: Image.Image = Image.open(BytesIO(cell), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Unreadable(TOO_LARGE) from error
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(TOO_LARGE)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # Pillow would clip at 255, not scale
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def load(name: str, revision: str | None = None, device: str | None = None) -> ImageEncoder:
    """Load the model `name` (see `weights.locate`) in float32 on `device`, by default the GPU if there is one.

    Raises: ConfigError where the model is missing, incomplete, not for images or of a type that is not known here,
    and where Pillow is not installed.
    """
    need(name, "PIL")
    weights = locate(name, revision)
    # Pillow resizes, not torchvision: one library less, and vectors do not depend on whether that is installed
    processor, model = load_transformer(name, weights.path, "pixel_values", "AutoImageProcessor", backend="pil")
    expect_type(name, model, CLASS_TOKEN + POOLED)
    config = model.config
    model, device = place(model, device)
    encoder = ImageEncoder(
        version=weights.version,
        dim=config.hidden_sizes[-1] if config.model_type in POOLED else config.hidden_size,
        device=device,
        processor=processor,
        model=model,
    )
    _expect_one_size(name, encoder)
    return encoder


def _expect_one_size(name: str, encoder: ImageEncoder) -> None:
    from PIL import Image

    shapes = {encoder.prepare(Image.new("RGB", size)).shape for size in ((40, 60), (60, 40))}
    if len(shapes) > 1:
        raise ConfigError(
            f"encoder {name!r}: its image processor makes images of {sorted(shapes)}, expected one size; "
            "let preprocessor_config.json resize or crop to one"
        )
