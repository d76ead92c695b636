"""The sections of the configuration about the content of items: encoders, facts, and fine-tuning a text encoder."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recspark.config.section import Place, Section


class Encoder(Section):
    """`encoder` is a folder, a name on the Hugging Face hub, or the packaged all-MiniLM-L6-v2."""

    encoder: Place = "all-MiniLM-L6-v2"
    """A folder, a name on the Hugging Face hub, or the packaged all-MiniLM-L6-v2."""
    revision: str | None = None
    """Commit of a model on the hub; without it no such model is loaded."""
    modality: Literal["text", "image", "audio", "video"] = "text"
    """What is encoded; a video is 8 frames, each through an image encoder."""
    input: str | None = None
    """Spark SQL over the columns of `items`; null: `text`, or `media`."""
    storage: Literal["float32", "float16", "int8"] = "float32"
    """How a vector is stored; the night's note says how many neighbours that costs."""
    pca: Annotated[int, Field(ge=1)] | None = None
    """Dimensions kept, fitted once on the items of the first night; null: all."""
    whiten: bool = False
    """With pca: every dimension is scaled to the same variance. Experimental."""

    @property
    def sql(self) -> str:
        """The Spark SQL of what is embedded."""
        return self.input or ("text" if self.modality == "text" else "media")


class ItemEmbeddings(Encoder):
    """The first encoder, and further ones in `also`."""

    also: tuple[Encoder, ...] = ()
    """Further encoders; the ranker learns their weights for each item, the content retriever averages them."""

    @property
    def all(self) -> tuple[Encoder, ...]:
        """Every encoder, the first one first."""
        return (Encoder(**{name: getattr(self, name) for name in Encoder.model_fields}), *self.also)


class FactEmbedding(Section):
    """TransE: item vectors from facts, in addition to those of the encoders."""

    dim: Annotated[int, Field(ge=2)] = 64
    """Dimensions of an item's vector."""
    max_epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over the facts at most."""
    growth: Annotated[float, Field(gt=0)] = 0.1
    """Trained again when the number of facts has grown by this share."""


class ItemFacts(Section):
    """Facts of items, as a graph made from the table `items`."""

    relations: Annotated[dict[str, str], Field(min_length=1)]
    """Name -> Spark SQL over `items`, a text or an array of texts."""
    embedding: FactEmbedding | None = None
    """A graph embedding of the items; null: none. Experimental."""
    reasons: dict[str, str] = {}
    """Relation -> the text of a reason: "by the director of {item}", "also by {entity}"."""

    @model_validator(mode="after")
    def _reasons(self) -> "ItemFacts":
        unknown = sorted(set(self.reasons) - set(self.relations))
        if unknown:
            raise ValueError(f"reasons: found {', '.join(unknown)}, expected names of relations")
        for name, text in self.reasons.items():
            if set(re.findall(r"[{]([^}]*)[}]", text)) - {"item", "entity"}:
                raise ValueError(f"reasons.{name}: found {text!r}, expected a text with {{item}} or {{entity}}")
        return self


class TextAdapter(Section):
    """LoRA, on pairs of items that a user interacted with soon after each other. Its model is used with
    `item_embeddings.encoder: text_adapter`."""

    encoder: Place = "all-MiniLM-L6-v2"
    """The base model."""
    revision: str | None = None
    """Commit of a base model on the hub."""
    scenarios: tuple[str, ...] | None = None
    """Raw source scenarios; null: all."""
    window_days: Annotated[float, Field(gt=0)] = 7.0
    """The longest time between the two items of a pair."""
    max_pairs: Annotated[int, Field(ge=1)] = 10_000
    """Pairs at most; on two cores an epoch takes 6 s for 100 pairs of long texts."""
    rank: Annotated[int, Field(ge=1)] = 8
    """Of LoRA's matrices."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of the optimiser AdamW."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Of the contrastive loss."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Pairs of a step; the others of the batch are the negatives."""
    max_tokens: Annotated[int, Field(ge=3)] = 64
    """Tokens of each text in training."""
    max_epochs: Annotated[int, Field(ge=1)] = 2
    """Passes over the pairs at most."""
