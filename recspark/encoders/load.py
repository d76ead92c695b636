"""Load a transformers model and its processor from a folder, with checks that its vectors will be meaningful."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from recspark.encoders.packed import pack
from recspark.errors import ConfigError

UNUSED = ("pooler.", "masked_spec_embed")  # weights that no vector depends on: a head, and a mask for training
KINDS = {"input_ids": "texts", "pixel_values": "images", "input_values": "audio"}  # by a model's main input


def load_transformer(
    name: str, folder: Path, takes: str, prepare: str, auto: str = "AutoModel", **options: Any
) -> tuple[Any, Any]:
    """(the processor of the inputs, the model in float32 for inference on the CPU), without network access.

    `takes`: the model's main input (of `KINDS`); `prepare` and `auto`: names of transformers' Auto classes, of the
    processor and the model; `options`: of the processor.

    Raises: ConfigError where something is missing or the model is of another kind.
    """
    import transformers

    with _no_progress_bars():
        try:
            model, info = getattr(transformers, auto).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            if model.main_input_name != takes:
                found = KINDS.get(model.main_input_name, model.main_input_name)
                raise ConfigError(
                    f"encoder {name!r}: is of type {model.config.model_type!r} for {found}, expected one for "
                    f"{KINDS[takes]}; name a model of that kind"
                )
            processor = getattr(transformers, prepare).from_pretrained(folder, local_files_only=True, **options)
        except (OSError, ValueError, SafetensorError) as error:
            why = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"encoder {name!r}: {folder} cannot be loaded ({why}); expected a folder saved by save_pretrained with "
                f"config.json, model.safetensors and the files of {prepare}"
            ) from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(UNUSED))
    if missing:
        raise ConfigError(
            f"encoder {name!r}: model.safetensors in {folder} lacks {len(missing)} weights that config.json asks for "
            f"(first: {missing[0]}), so its vectors would be random; take weights and config from one model"
        )
    return processor, model.float().eval()


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def expect_type(name: str, model: Any, known: tuple[str, ...]) -> None:
    """Raise ConfigError where the model's type is not in `known`: it is not known which of its states is the vector."""
    if model.config.model_type not in known:
        raise ConfigError(f"encoder {name!r}: is of type {model.config.model_type!r}, expected one of {sorted(known)}")


def need(name: str, module: str, extra: str = "media") -> None:
    """Raise ConfigError where `module`, of the optional dependencies `extra`, is not installed."""
    if find_spec(module) is None:
        raise ConfigError(f"encoder {name!r}: needs the library {module}; run `pip install recspark[{extra}]`")


def merge_adapter(name: str, model: Any, folder: Path) -> Any:
    """The model with a peft adapter added to its weights.

    Raises: ConfigError where the adapter is broken or was made for another model.
    """
    need(name, "peft", "lora")
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    try:
        settings, found = PeftConfig.from_pretrained(str(folder)), load_file(folder / "adapter_model.safetensors")
        settings.base_model_name_or_path = model.name_or_path  # the local folder; peft warns where names differ
        with_adapter = get_peft_model(model, settings)
        expected = get_peft_model_state_dict(with_adapter)
        if {key: weight.shape for key, weight in found.items()} != {key: w.shape for key, w in expected.items()}:
            raise ValueError(f"{len(found)} weights that are not the {len(expected)} of this base")
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"encoder {name!r}: the adapter in {folder} cannot be loaded ({why}); expected adapter_config.json and "
            "adapter_model.safetensors as peft saves them, for this base"
        ) from error
    set_peft_model_state_dict(with_adapter, found)
    return with_adapter.merge_and_unload()


def place(model: Any, device: str | None, packed: bool = True) -> tuple[Any, str]:
    """The model on `device`, by default the GPU if there is one; on the CPU, and if `packed`, with weights laid out for
    it, which cannot be trained."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return (pack(model) if packed and torch.device(device).type == "cpu" else model.to(device)), device
