"""The part of the configuration that is about what items are: which encoders make vectors of it, facts, fine-tuning."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Encoder(Section):
    """A folder, a name on the Hugging Face hub, or the packaged all-MiniLM-L6-v2."""

    encoder: str = "all-MiniLM-L6-v2"
    revision: str | None = None
    modality: Literal["text", "image", "audio", "video"] = "text"  # of a video 8 frames, through a model for images
    input: str | None = None  # what is embedded, Spark SQL over the columns of `items`; None: text, else media
    storage: Literal["float32", "float16", "int8"] = "float32"
    pca: Annotated[int, Field(ge=1)] | None = None  # numbers kept; fitted once, on the items of the first night
    whiten: bool = False  # with pca: each number of the same spread

    @property
    def sql(self) -> str:
        return self.input or ("text" if self.modality == "text" else "media")


class ItemEmbeddings(Encoder):
    also: tuple[Encoder, ...] = ()  # further ones; the ranker weighs them item by item, the content retriever equally

    @property
    def all(self) -> tuple[Encoder, ...]:
        return (Encoder(**{name: getattr(self, name) for name in Encoder.model_fields}), *self.also)


class FactEmbedding(Section):
    """TransE: vectors of items from their facts, beside those of their texts."""

    dim: Annotated[int, Field(ge=2)] = 64
    max_epochs: Annotated[int, Field(ge=1)] = 30
    growth: Annotated[float, Field(gt=0)] = 0.1  # trained anew when there are so many more facts


class ItemFacts(Section):
    relations: Annotated[dict[str, str], Field(min_length=1)]  # name -> Spark SQL over `items`, a text or an array
    embedding: FactEmbedding | None = None
    reasons: dict[str, str] = {}  # relation -> what a shared fact says: "by the director of {item}", "also by {entity}"

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
    """LoRA on what the same users took soon after each other; `item_embeddings.encoder: text_adapter` is its model."""

    encoder: str = "all-MiniLM-L6-v2"  # the base
    revision: str | None = None
    scenarios: tuple[str, ...] | None = None  # raw source scenarios; None: all
    window_days: Annotated[float, Field(gt=0)] = 7.0  # soon
    max_pairs: Annotated[int, Field(ge=1)] = 10_000  # on two cores 6 s a hundred of long texts, an epoch
    rank: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    temperature: Annotated[float, Field(gt=0)] = 0.05
    batch_size: Annotated[int, Field(ge=2)] = 64  # pairs; each sees the others as negatives
    max_tokens: Annotated[int, Field(ge=3)] = 64  # of a text, in training
    max_epochs: Annotated[int, Field(ge=1)] = 2
