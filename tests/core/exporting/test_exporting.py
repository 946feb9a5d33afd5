"""What exporters of any package may build with."""

from __future__ import annotations

import ast
import json
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT
from encoder_models import encoder_folder
from graftkit import PluginHost
from graftkit.exporting.cards import vllm_examples
from graftkit.exporting.model_folder import save_tokenizer
from graftkit.flow.base_files.find_tokenizer import find_tokenizer

HELPERS: dict[str, tuple[str, list[str]]] = runpy.run_path(str(ROOT / "docs/generate.py"))["HELPERS"]
MODULES = [module for _, modules in HELPERS.values() for module in modules]


def test_the_recipes_fields_of_a_model_folder_load_no_torch() -> None:
    script = "import sys, graftkit.exporting.config; print([n for n in ('torch', 'transformers') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_helpers_are_public() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [public] = [contract for contract in contracts if contract["id"] == "plugins-use-the-public-face"]
    private = tuple(public["forbidden_modules"])
    assert len(MODULES) > 15 and not [name for name in MODULES if f"graftkit.{name}".startswith(private)]
    written = {path.stem for path in (ROOT / "core/graftkit/exporting").glob("[!_]*.py")} - {"peft_experts"}
    assert written == {name.removeprefix("exporting.") for name in MODULES if name.startswith("exporting.")}


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({}, 16),
        ({"rank_pattern": {"q_proj": 17}}, 32),
        ({"use_rslora": True, "bias": "none", "modules_to_save": None, "target_parameters": []}, 16),
        ({"rank_pattern": {"q_proj": 513}}, None),
        ({"use_dora": True}, None),
        ({"modules_to_save": ["embed_tokens"]}, None),
        ({"trainable_token_indices": {"embed_tokens": [7]}}, None),
        ({"target_parameters": ["mlp.experts.down_proj"]}, None),
    ],
)
def test_vllm_is_named_where_it_takes_an_adapter(fields: dict[str, Any], allowed: int | None, tmp_path: Path) -> None:
    """As vLLM's `PEFTHelper` and the names of tensors that its `LoRAModel` reads have it."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 9, **fields}))
    told = [example.code for example in vllm_examples("./my model", tmp_path, ".")]
    command = f"vllm serve './my model' --enable-lora --max-lora-rank {allowed} --lora-modules tuned=."
    assert told == ([command] if allowed else [])


@pytest.mark.parametrize(
    ("config", "typed"),
    [
        ({"model_type": "gpt2"}, False),
        ({"model_type": "bert", "type_vocab_size": 2}, True),
        ({"model_type": "gemma3", "text_config": {}, "vision_config": {}}, True),
    ],
)
def test_a_model_is_given_the_types_of_tokens_where_it_knows_them(
    config: dict[str, Any], typed: bool, tmp_path: Path
) -> None:
    """GPT-2, with BERT's tokenizer, would add the embedding of the token 0 to each that is of the type 0."""
    from transformers import AutoTokenizer

    base, folder = encoder_folder(tmp_path / "base", "bert"), tmp_path / "saved"
    folder.mkdir()
    save_tokenizer(find_tokenizer(PluginHost(), str(base)).tokenizer, folder, config)
    assert ("token_type_ids" in AutoTokenizer.from_pretrained(folder)("the film")) == typed


@pytest.mark.parametrize("module", MODULES)
def test_every_helper_says_what_it_does(module: str) -> None:
    path = Path(ROOT, "core/graftkit", *module.split(".")).with_suffix(".py")
    found = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [node.name for node in found if not node.name.startswith("_") and not ast.get_docstring(node)] == []
    for node in found:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            said = [*node.args.args, *node.args.kwonlyargs]
            assert node.returns is not None and all(argument.annotation for argument in said), node.name
