"""What the keys of TRL, PEFT, Axolotl, LLaMA-Factory and Unsloth are called in a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from graftkit.recipe.schema.training import Optimizer, Schedule

__all__ = ["OTHER_PROGRAMS", "OtherKey", "own_key"]


@dataclass(frozen=True, slots=True)
class OtherKey:
    """A key of another program.

    Attributes:
        target: The recipe's own key, its sections separated by dots; empty where it has none.
        write: What to write in the recipe, as YAML; empty where nothing replaces the key.
        differs: How its meaning differs, or why the recipe has no such key; empty where it means the same.
    """

    target: str = ""
    write: str = ""
    differs: str = ""

    def told(self, name: str) -> str:
        """Returns what a hint says of it."""
        if not self.target:
            return f"A recipe has no key for {name}: {self.differs}."
        differs = f"; {self.differs}" if self.differs else ""
        return f"{name} is {self.target}{differs}: write {self.write}."


_RANK = OtherKey("adapter.rank", "adapter: {use: lora, rank: 16}")
_ALPHA = OtherKey("adapter.alpha", "adapter: {use: lora, rank: 16, alpha: 32}")
_DROPOUT = OtherKey("adapter.dropout", "adapter: {use: lora, dropout: 0.05}")
_TARGETS = OtherKey("adapter.targets", "adapter: {use: lora, targets: [q_proj, v_proj]}")
_ALL_LINEAR = OtherKey("adapter.targets", "adapter: {use: lora, targets: all-linear}", "all-linear is the default")
_RATE = OtherKey("training.learning_rate", "training: {learning_rate: 2e-4}")
_BATCH = OtherKey(
    "training.tokens_per_step",
    "training: {tokens_per_step: 4096}",
    "it counts the tokens of an optimizer step, not its examples: examples times their mean length",
)
_PASS = OtherKey(
    "training.microbatch_tokens",
    "training: {tokens_per_step: 4096, microbatch_tokens: 1024}",
    "it counts the tokens of one forward pass, not its examples, and changes the memory alone; the optimizer's step is "
    "training.tokens_per_step, with nothing to multiply",
)
_ACCUMULATION = OtherKey(
    "training.tokens_per_step",
    "training: {tokens_per_step: 4096, microbatch_tokens: 1024}",
    "gradients are summed over as many passes of training.microbatch_tokens as a step takes",
)
_LENGTH = OtherKey(
    "data.max_length", "data: {train: train.jsonl, max_length: 1024}", "data.overflow says what becomes of longer ones"
)
_EPOCHS = OtherKey("training.epochs", "training: {epochs: 3}")
_STEPS = OtherKey("training.steps", "training: {steps: 100}", "instead of training.epochs; -1 is leaving it out")
_WARMUP = OtherKey("training.warmup", "training: {warmup: 0.05}")
_WARMUP_STEPS = OtherKey("training.warmup_steps", "training: {warmup_steps: 20}")
_FOUR_BITS = OtherKey("quantizer", "quantizer: nf4")
_COMPUTE = OtherKey("training.dtype", "training: {dtype: bfloat16}", "what is trained stays float32")
_MODEL = OtherKey("model", "model: ./folder")
_DATA = OtherKey("data.train", "data: {train: train.jsonl}", "the format is found out, or said by data.train.format")
_FIRST = OtherKey("data.train", "data: {train: {path: train.jsonl, first: 1000}}")
_HOLDOUT = OtherKey(
    "data.holdout", "data: {train: train.jsonl, holdout: 0.05}", "a share from 0 to 0.5, or a file; not a number"
)
_SCHEDULE = OtherKey(
    "training.schedule",
    "training: {schedule: cosine}",
    f"one of {', '.join(get_args(Schedule))}",
)
_TEMPLATE = OtherKey(
    "data.chat_template",
    "data: {train: train.jsonl, chat_template: template.jinja}",
    "a Jinja file, not a template's name; the tokenizer's own when left out",
)
_NORM = OtherKey("training.max_grad_norm", "training: {max_grad_norm: 1.0}")
_SEED = OtherKey("training.seed", "training: {seed: 0}")
_SAVES = OtherKey("training.checkpoint_every", "training: {checkpoint_every: 100}")

_EVALUATIONS = OtherKey(
    "evaluation.every", "evaluation: {every: 50}", "it evaluates evaluation.sample holdout examples"
)
_PATIENCE = OtherKey("evaluation.patience", "evaluation: {every: 50, patience: 3}", "the best step is exported then")
_BEST = OtherKey("evaluation.exported", "evaluation: {every: 50, exported: best}", "by the holdout loss")

_PACKED = OtherKey(
    differs="sequences share a pass without padding wherever that computes what the model computes of each alone"
)
_OPTIMIZER = OtherKey("training.optimizer", "training: {optimizer: adamw}", f"one of {', '.join(get_args(Optimizer))}")
_ANSWERS = OtherKey(
    differs="of conversations and prompts only the answers are learnt, of texts all; a message's `weight` or `train` "
    "says otherwise"
)
_WHOLE_MODULES = OtherKey(
    "adapter.modules_to_save",
    "adapter: {use: lora, modules_to_save: [embed_tokens, lm_head]}",
    "the rows of tokens that tokenizer.extend adds are trained anyway",
)
_DORA = OtherKey("adapter.dora", "adapter: {use: lora, dora: true}")
_NOISE = OtherKey("training.neftune_noise_alpha", "training: {neftune_noise_alpha: 5}")
_MIN_RATE = OtherKey(
    "training.min_lr_ratio",
    "training: {schedule: cosine, min_lr_ratio: 0.1}",
    "it is a share of training.learning_rate",
)
_RECOMPUTED = OtherKey(
    "memory.checkpoint", "memory: {checkpoint: blocks}", "less training.microbatch_tokens takes less memory, too"
)
_FOLDER = OtherKey(differs="the run's folder is said to the command: toolkit run RECIPE --out FOLDER")
_RESUMED = OtherKey(differs="a run goes on by the command: toolkit run RECIPE --resume")
_LOGGED = OtherKey(differs="every step is a line of the run's metrics.jsonl; other loggers are plugins")
_PROCESSES = OtherKey(
    differs="several processes are started by the command: toolkit run RECIPE --processes N, or torchrun"
)
_ATTENTION = OtherKey(differs="attention is chosen by the device, and compared with the model's own before training")
_HUB = OtherKey(differs="nothing is uploaded; exports are folders")

OTHER_PROGRAMS: dict[str, OtherKey] = {
    **dict.fromkeys(("r", "lora_r", "lora_rank", "rank"), _RANK),
    **dict.fromkeys(("lora_alpha", "alpha"), _ALPHA),
    **dict.fromkeys(("lora_dropout", "dropout"), _DROPOUT),
    **dict.fromkeys(("target_modules", "lora_target_modules", "lora_target"), _TARGETS),
    "lora_target_linear": _ALL_LINEAR,
    **dict.fromkeys(
        ("use_rslora", "peft_use_rslora", "rslora"), OtherKey("adapter.rslora", "adapter: {use: lora, rslora: true}")
    ),
    **dict.fromkeys(
        ("loraplus_lr_ratio", "lora_plus_ratio"),
        OtherKey("adapter.lora_plus_ratio", "adapter: {use: lora, lora_plus_ratio: 16.0}"),
    ),
    **dict.fromkeys(
        ("rank_pattern", "lora_rank_pattern"),
        OtherKey("adapter.rank_pattern", "adapter: {use: lora, rank_pattern: {q_proj: 8}}"),
    ),
    "alpha_pattern": OtherKey("adapter.alpha_pattern", "adapter: {use: lora, alpha_pattern: {q_proj: 8}}"),
    **dict.fromkeys(
        ("finetuning_type", "peft_type", "peft_config", "lora"), OtherKey("adapter.use", "adapter: {use: lora}")
    ),
    **dict.fromkeys(("lr", "learning_rate"), _RATE),
    **dict.fromkeys(("batch_size", "train_batch_size"), _BATCH),
    **dict.fromkeys(("per_device_train_batch_size", "micro_batch_size"), _PASS),
    "gradient_accumulation_steps": _ACCUMULATION,
    **dict.fromkeys(
        ("max_length", "max_seq_length", "max_seq_len", "sequence_len", "cutoff_len", "model_max_length"), _LENGTH
    ),
    **dict.fromkeys(("num_train_epochs", "num_epochs"), _EPOCHS),
    "max_steps": _STEPS,
    "warmup_ratio": _WARMUP,
    **dict.fromkeys(("warmup_steps", "num_warmup_steps"), _WARMUP_STEPS),
    **dict.fromkeys(("load_in_4bit", "quantization_bit"), _FOUR_BITS),
    "load_in_8bit": OtherKey("quantizer", "quantizer: int8"),
    "bnb_4bit_quant_type": OtherKey("quantizer", "quantizer: nf4", "fp4 there is none"),
    **dict.fromkeys(
        ("bnb_4bit_use_double_quant", "double_quantization", "double_quant"),
        OtherKey("quantizer.double_quant", "quantizer: {use: nf4, double_quant: true}"),
    ),
    "bnb_4bit_compute_dtype": _COMPUTE,
    "bf16": _COMPUTE,
    "fp16": OtherKey("training.dtype", "training: {dtype: bfloat16}", "float32 or bfloat16; not float16"),
    "torch_dtype": _COMPUTE,
    **dict.fromkeys(("base_model", "model_name_or_path", "model_name", "model_id", "base_model_config"), _MODEL),
    **dict.fromkeys(("dataset", "datasets", "train_file", "dataset_name", "dataset_path", "train_dataset"), _DATA),
    **dict.fromkeys(("max_samples", "max_train_samples"), _FIRST),
    **dict.fromkeys(
        ("val_set_size", "val_size", "eval_split", "test_datasets", "eval_dataset", "validation_file"), _HOLDOUT
    ),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler", "scheduler"), _SCHEDULE),
    "weight_decay": OtherKey(
        "training.weight_decay", "training: {weight_decay: 0.01}", "biases decay, too, where they are trained"
    ),
    **dict.fromkeys(("max_grad_norm", "gradient_clipping"), _NORM),
    **dict.fromkeys(("seed", "random_state", "data_seed"), _SEED),
    **dict.fromkeys(("chat_template", "chat_template_path", "template"), _TEMPLATE),
    "save_steps": _SAVES,
    "save_total_limit": OtherKey("training.keep_checkpoints", "training: {keep_checkpoints: 2}"),
    **dict.fromkeys(("eval_steps", "eval_strategy", "evaluation_strategy", "evals_per_epoch"), _EVALUATIONS),
    "early_stopping_patience": _PATIENCE,
    "early_stopping_threshold": OtherKey(
        "evaluation.min_delta",
        "evaluation: {every: 50, patience: 3, min_delta: 0.01}",
        "a loss is compared with that of the last gain, not with the lowest before",
    ),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model"), _BEST),
    **dict.fromkeys(
        ("new_tokens", "added_tokens", "add_tokens"),
        OtherKey("tokenizer.extend.words", "tokenizer: {extend: {tokens: 0, words: [WORD]}}"),
    ),
    **dict.fromkeys(
        ("packing", "sample_packing", "pad_to_sequence_len", "eval_sample_packing", "group_by_length"), _PACKED
    ),
    **dict.fromkeys(("optim", "optimizer"), _OPTIMIZER),
    **dict.fromkeys(
        (
            "train_on_inputs",
            "assistant_only_loss",
            "completion_only_loss",
            "train_on_responses_only",
            "train_on_prompt",
            "mask_history",
        ),
        _ANSWERS,
    ),
    **dict.fromkeys(("modules_to_save", "lora_modules_to_save", "additional_target"), _WHOLE_MODULES),
    **dict.fromkeys(("use_dora", "peft_use_dora"), _DORA),
    **dict.fromkeys(("neftune_noise_alpha", "neftune_alpha", "noise_alpha"), _NOISE),
    **dict.fromkeys(("adam_beta1", "beta1"), OtherKey("training.beta1", "training: {beta1: 0.9}")),
    **dict.fromkeys(("betas", "adam_betas"), OtherKey("training.beta1", "training: {beta1: 0.9, beta2: 0.999}")),
    **dict.fromkeys(("adam_beta2", "beta2"), OtherKey("training.beta2", "training: {beta2: 0.999}")),
    **dict.fromkeys(("adam_epsilon", "eps", "epsilon"), OtherKey("training.epsilon", "training: {epsilon: 1e-8}")),
    "num_cycles": OtherKey("training.cycles", "training: {schedule: cosine_with_restarts, cycles: 2}"),
    "lr_end": OtherKey(
        "training.min_lr_ratio",
        "training: {schedule: polynomial, min_lr_ratio: 0.1}",
        "it is a share of training.learning_rate",
    ),
    "num_decay_steps": OtherKey(
        "training.decay", "training: {schedule: wsd, decay: 0.1}", "it is a share of all steps"
    ),
    "power": OtherKey("training.power", "training: {schedule: polynomial, power: 2}"),
    "timescale": OtherKey("training.timescale", "training: {schedule: inverse_sqrt, timescale: 1000}"),
    **dict.fromkeys(("min_lr", "min_lr_rate", "cosine_min_lr_ratio", "lr_scheduler_kwargs"), _MIN_RATE),
    **dict.fromkeys(("gradient_checkpointing", "use_gradient_checkpointing", "activation_checkpointing"), _RECOMPUTED),
    **dict.fromkeys(("output_dir", "overwrite_output_dir"), _FOLDER),
    "resume_from_checkpoint": _RESUMED,
    **dict.fromkeys(("logging_steps", "report_to", "wandb_project"), _LOGGED),
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config", "ddp_timeout"), _PROCESSES),
    **dict.fromkeys(("flash_attention", "attn_implementation", "flash_attn"), _ATTENTION),
    **dict.fromkeys(("push_to_hub", "hub_model_id"), _HUB),
}
"""Their keys; also the recipe's own that are often written in another section than theirs."""


def own_key(name: str, path: str) -> str:
    """Returns the hint for a key that another program has, or that belongs in another section; else nothing.

    Args:
        name: The key.
        path: Where in the recipe it stands, its sections separated by dots.

    Example:
        >>> own_key("r", "adapter.r")
        'r is adapter.rank: write adapter: {use: lora, rank: 16}.'
    """
    found = OTHER_PROGRAMS.get(name)
    return found.told(name) if found and found.target != path else ""
