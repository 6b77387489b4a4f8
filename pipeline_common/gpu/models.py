"""Loading the base model and an adapter: the same way in training and in evaluation."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from pipeline_common.config import ModelConfig, RuntimeConfig
from pipeline_common.errors import ConfigError, InputError
from pipeline_common.gpu.foreign_code import describe_loading_error
from pipeline_common.gpu.four_bit import import_failure
from pipeline_common.gpu.quantizing import quantised_by
from pipeline_common.gpu.tokenizer import load_tokenizer as load_tokenizer  # callers find both loaders here
from pipeline_common.logs import get_logger

ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_log = get_logger(__name__)


@dataclass(frozen=True)
class Placement:
    """Where and in which arithmetic a model runs."""

    device: Literal["cpu", "cuda"]
    compute_dtype: torch.dtype
    quantization: Literal["nf4", "none"]


def choose_placement(model: ModelConfig, runtime: RuntimeConfig) -> Placement:
    """The device and arithmetic of this process; sets torch's threads.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    torch.set_num_threads(runtime.threads)
    available = torch.cuda.is_available()
    if runtime.device == "cuda" and not available:
        raise ConfigError(
            f"runtime.device=cuda, but torch {torch.__version__} sees no GPU; check the driver (nvidia-smi) and that "
            "this is torch's CUDA build, or use runtime.device=auto"
        )
    device: Literal["cpu", "cuda"] = "cuda" if available and runtime.device != "cpu" else "cpu"
    return Placement(device, _DTYPES[model.compute_dtype], model.quantization)


def load_base(folder: Path, placement: Placement, *, packed: torch.dtype | None = None) -> Any:
    """The frozen base model in evaluation mode.

    Args:
        folder: a local folder with config.json and safetensors.
        placement: device, arithmetic, quantisation.
        packed: the type that holds the 4-bit codes, for a base that is divided among GPUs afterwards: it is then left
            in the machine's memory, though quantised on the GPU where there is one. No number depends on it.

    Returns:
        A transformers causal language model.

    Raises:
        InputError: the folder holds no loadable safetensors model.
    """
    quantization = None
    if placement.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=placement.compute_dtype,
            bnb_4bit_quant_storage=packed or torch.uint8,
        )
    # The process's own GPU, where a machine has several.
    device = torch.cuda.current_device() if placement.device == "cuda" else "cpu"
    stays = device if packed is None else "cpu"
    try:
        with quantised_by(torch.device(device)) if stays != device else nullcontext():
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                quantization_config=quantization,
                dtype=placement.compute_dtype,
                attn_implementation="sdpa",
                device_map={"": stays},
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} does not load as a causal language model: {describe_loading_error(error)}"
        ) from error
    _keep_weights_as_quantised(model)
    return model.eval()


def _keep_weights_as_quantised(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit layers on processors with AVX512-BF16.

    There it rounds a layer's scales to bfloat16 at the first inference, for good, and computes with it in bfloat16 and
    without gradients: results would depend on the processor, and training after an evaluation would be silently wrong.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def attach_adapter(model: Any, folder: Path) -> Any:
    """Put a LoRA adapter on a loaded base, unmerged, so that it can be switched off.

    Args:
        model: what `load_base` returned.
        folder: PEFT's adapter_config.json and adapter_model.safetensors.

    Returns:
        A PeftModel in evaluation mode; `with peft.disable_adapter():` is the base, bit by bit.

    Raises:
        InputError: the adapter does not fit the base, a key was left over or missing, or every B matrix is zero.
    """
    # Before PEFT, which an installed but broken bitsandbytes would take down.
    import_failure()

    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{folder} holds no {ADAPTER_WEIGHTS}; expected an adapter in PEFT's format")
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
        stored = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        any_change = any(weights.get_tensor(name).any() for name in stored if "lora_B" in name)
    if not any_change:
        raise InputError(
            f"{folder}: every lora_B matrix is zero, so this adapter changes nothing; was it ever trained?"
        )
    try:
        tuned = PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"the adapter {folder} does not fit the base model: {_first_line(error)}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(tuned).items()}
    if expected != stored:
        differing = sorted({name for name in expected.keys() | stored.keys() if expected.get(name) != stored.get(name)})
        raise InputError(
            f"the adapter {folder} does not fit the base model: {len(differing)} of {len(expected)} keys differ, "
            f"first {differing[0]} (in the file {stored.get(differing[0])}, in the model {expected.get(differing[0])})"
        )
    _log.debug("adapter: %d tensors loaded from %s", len(stored), folder)
    return tuned.eval()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[:3])
