"""Keys of other programs that a recipe does without, and why."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["changes_nothing", "why_not"]

_TEMPLATE = "the model's own chat template is used; data.chat_template takes a Jinja file"
_PROCESSES = "toolkit run --processes N or torchrun start several processes"
_WHY: Mapping[str, str] = {
    **dict.fromkeys(("chat_template", "template", "chat_template_jinja", "chat_template_path"), _TEMPLATE),
    **dict.fromkeys(("fsdp", "fsdp_config", "fsdp_version", "deepspeed", "dp_shard_size", "ddp"), _PROCESSES),
    **dict.fromkeys(("train_on_inputs", "train_on_prompt"), "of conversations only the answers are learnt"),
    "save_total_limit": "say training.checkpoint_every, a number of steps",
    **dict.fromkeys(
        ("early_stopping_patience", "load_best_model_at_end", "metric_for_best_model"),
        "it needs evaluation.every, a number of steps",
    ),
    **dict.fromkeys(("resume_from_checkpoint", "auto_resume_from_checkpoints"), "toolkit run RECIPE --resume"),
    **dict.fromkeys(
        ("lora_model_dir", "adapter_name_or_path"), "adapter: {from: FOLDER} goes on with an adapter's training"
    ),
    **dict.fromkeys(("hub_model_id", "push_to_hub", "hub_strategy"), "nothing is uploaded; exports are folders"),
    **dict.fromkeys(("trust_remote_code",), "a model's own code is never run"),
    "streaming": "records are read from the disk when they are needed",
    **dict.fromkeys(("eot_tokens",), "what ends a turn is found in the template, or said by data.end_of_turn"),
    **dict.fromkeys(("bnb_4bit_compute_dtype",), "training.dtype is the type of the computation"),
    **dict.fromkeys(("eos_token",), "data.end_of_turn is the text that ends an assistant's turn"),
    **dict.fromkeys(("model_revision",), "a hub's model is its main branch; download another one and name its folder"),
    **dict.fromkeys(("max_prompt_length",), "data.max_length counts the tokens of prompt and answer together"),
    "test": "toolkit evaluate RUN --data FILE measures other records",
    "system": "a system message is part of each record",
    "target_regex": "adapter.targets takes names and patterns such as *.self_attn.*",
    **dict.fromkeys(("mask_history", "loss_scale"), "every answer of a conversation is learnt"),
    **dict.fromkeys(
        ("roles_to_train", "train_on_eos", "train_on_eot"),
        "what the assistant writes is learnt, to the end of each turn",
    ),
}

_WITHOUT_EFFECT = frozenset(
    {
        "adapter_path",
        "add_version",
        "attn_impl",
        "attn_implementation",
        "check_model",
        "clear_cache_threshold",
        "cut_cross_entropy",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "dataset_num_proc",
        "dataset_prepared_path",
        "dataset_processes",
        "disable_gradient_checkpointing",
        "eval_packing",
        "eval_sample_packing",
        "gradient_checkpointing_kwargs",
        "group_by_length",
        "pad_to_sequence_len",
        "ddp_backend",
        "ddp_find_unused_parameters",
        "ddp_timeout",
        "debug",
        "do_eval",
        "do_train",
        "enable_liger_kernel",
        "eval_batch_size",
        "flash_attention",
        "flash_attn",
        "flash_attn_cross_entropy",
        "flex_attention",
        "freeze_aligner",
        "freeze_multi_modal_projector",
        "freeze_vision_tower",
        "freeze_vit",
        "include_tokens_per_second",
        "is_falcon_derived_model",
        "is_llama_derived_model",
        "is_mistral_derived_model",
        "is_qwen_derived_model",
        "lazy_tokenize",
        "load_from_cache_file",
        "local_rank",
        "logging_dir",
        "logging_first_step",
        "logging_steps",
        "logging_strategy",
        "lora_mlp_kernel",
        "lora_o_kernel",
        "lora_qkv_kernel",
        "lora_task_type",
        "low_cpu_mem_usage",
        "merge_lora",
        "model_type",
        "no_remove_unused_columns",
        "output_dir",
        "overwrite_cache",
        "overwrite_output_dir",
        "per_device_eval_batch_size",
        "plot_loss",
        "preprocessing_num_workers",
        "processor_type",
        "remove_unused_columns",
        "run_name",
        "save_first_step",
        "save_only_model",
        "save_safetensors",
        "sdp_attention",
        "steps_per_report",
        "shuffle_merged_datasets",
        "skip_prepare_dataset",
        "strict",
        "test_batches",
        "tf32",
        "tokenizer_type",
        "torch_compile",
        "train",
        "use_hf",
        "use_liger",
        "use_fast_tokenizer",
        "use_kernels",
        "use_liger_kernel",
        "use_unsloth",
        "xformers_attention",
    }
)
"""Keys that say how another program works, and nothing of what is learnt."""

_PREFIXES = ("wandb_", "mlflow_", "comet_", "swanlab_", "trackio_", "liger_")


def why_not(name: str, otherwise: str = "a recipe has no key for it") -> str:
    """Returns why a key is not converted.

    Args:
        name: The key.
        otherwise: What is said of a key of which nothing is known.
    """
    return _WHY.get(name, otherwise)


def changes_nothing(name: str) -> bool:
    """Returns whether a key changes nothing of what is learnt."""
    return name in _WITHOUT_EFFECT or name.startswith(_PREFIXES)
