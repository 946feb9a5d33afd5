"""What is a secret, and what is not."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import RecipeError
from graftkit.interfaces.config import ProviderConfig
from graftkit.recipe.document import Document
from graftkit.recipe.options import bind_options
from graftkit.recipe.overrides import apply_overrides
from graftkit.recipe.schema.recipe import Recipe
from graftkit.redact import names_secret, without_secret_assignment, without_secret_values, without_secrets
from pydantic import BaseModel


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "hub_token", "hub.token", "apiKey", "AWS_SECRET_ACCESS_KEY", "password", "private-key", "PASSWORD"],
)
def test_a_name_that_says_secret_is_one(name: str) -> None:
    assert names_secret(name)


def test_no_key_of_a_recipe_is_taken_for_a_secret() -> None:
    def keys(model: type[BaseModel], path: str = "") -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            found.append(f"{path}{name}")
            inner = [t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(t, type)]
            for section in inner:
                found += keys(section, f"{path}{name}.") if issubclass(section, BaseModel) else []
        return found

    assert len(keys(Recipe)) > 40
    assert [key for key in keys(Recipe) if names_secret(key)] == []


def test_secrets_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary-of-the-environment")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "token").write_text("canary-of-the-hubs-file\n")
    (tmp_path / "stored_tokens").write_text("[mine]\nhf_token = canary-of-stored-tokens\n")
    text = (
        "a canary-of-the-environment, canary-of-the-hubs-file, canary-of-stored-tokens, "
        "https://me:canary@host/path, hf_canarycanarycanarycanary, sk-canarycanarycanarycanary"
    )
    assert without_secrets(text) == "a ***, ***, ***, https://***@host/path, ***, ***"


def test_a_file_of_tokens_is_read_once_and_again_when_it_or_its_place_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read, paths = Path.read_text, []

    def counted(self: Path, *arguments: Any, **named: Any) -> str:
        paths.append(self.name)
        return read(self, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", counted)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"canary-of-the-file-{name}\n")
    said = "canary-of-the-file-one, canary-of-the-file-two, canary-of-the-file-three"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "one"))
    shown = [without_secrets(said) for _ in range(3)]
    assert shown == ["***, canary-of-the-file-two, canary-of-the-file-three"] * 3 and paths == ["token"]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "two"))
    assert without_secrets(said) == "canary-of-the-file-one, ***, canary-of-the-file-three"
    (tmp_path / "two" / "token").write_text("canary-of-the-file-three")
    assert without_secrets(said) == "canary-of-the-file-one, canary-of-the-file-two, ***"
    (tmp_path / "two" / "token").unlink()
    assert without_secrets(said) == said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_in_the_place_of_a_file_of_tokens_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "token")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    assert without_secrets("plain words") == "plain words"


@pytest.mark.parametrize(
    "text", ["hf_home is a name", "https://host:8080/a@b", "sk-learn", "the token 5", "package:llm/a.gguf"]
)
def test_plain_words_stay(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/x?token=canary&a=1", "https://host/x?token=***&a=1"),
        ("https://host/x?a=1&X-Amz-Signature=canary#b", "https://host/x?a=1&X-Amz-Signature=***#b"),
        ("https://host/x?sv=1;sig=canary%2B end", "https://host/x?sv=1;sig=*** end"),
        ("https://me:can/ary@host/x", "https://***@host/x"),
        ("https://me:@canary@host/x", "https://***@host/x"),
        ("https://me:canary@host, https://me:can://a:ary@host/x", "https://***@host, https://***@host/x"),
        ("https://me:canary@host,http://you:80@canary@host/x", "https://***@host/x"),
        ('"https://me:canary@host", "a@b"', '"https://***@host", "a@b"'),
        ("s3://AKIAABCDEFGHIJKLMNOP:canary/x", "s3://***/x"),
        ("Authorization: Bearer canarycanarycanary", "Authorization: Bearer ***"),
    ],
)
def test_secrets_of_urls_and_headers_are_hidden(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_secret_is_hidden_in_every_form_that_texts_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "-----BEGIN KEY-----\ncanary'of\\the\"first-line\ncanary-of-the-s\u00e9cond-line"
    monkeypatch.setenv("PRIVATE_KEY", key)
    monkeypatch.setenv("A_TOKEN", "canary-of")
    monkeypatch.setenv("B_TOKEN", "canary-of-the-longer-one")
    for text in (key, repr(key), json.dumps(key), json.dumps({"a": key}, ensure_ascii=False), *key.splitlines()):
        assert "canary" not in without_secrets(f"x {text} y") and "line" not in without_secrets(text)
    assert without_secrets("canary-of-the-longer-one") == "***"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("hub_token=canary", "hub_token=***"),
        ("hub_token: canary", "hub_token***"),
        ("hub_token: canary=x", "hub_token***"),
        (" hub_token=canary", "***"),
        ("a.password canary", "a.password***"),
        ("hub_token", "hub_token"),
        ("training.steps=3", "training.steps=3"),
    ],
)
def test_an_assignment_shows_the_key_alone(typed: str, shown: str) -> None:
    assert without_secret_assignment(typed) == shown


@pytest.mark.parametrize("typed", ["hub_token: canary", "hub_token=[canary", "hub_token canary"])
def test_errors_of_assignments_show_no_secret(typed: str) -> None:
    for refused in (
        lambda: apply_overrides(Document({}, "recipe"), [typed]),
        lambda: bind_options(ProviderConfig, [typed]),
    ):
        with pytest.raises(RecipeError) as caught:
            refused()
        assert "hub_token" in str(caught.value) and "canary" not in str(caught.value)


def test_in_json_the_key_says_what_is_hidden() -> None:
    data = {"use": "x", "hub_token": "canary", "inner": [{"password": "canary", "tokens": 3, "token": None}]}
    hidden = {"use": "x", "hub_token": "***", "inner": [{"password": "***", "tokens": 3, "token": None}]}
    assert without_secret_values(data) == hidden


@pytest.mark.parametrize("text", ["://a:" * 200_000, "://a:" * 200_000 + "@", '"://a:' * 200_000])
def test_a_text_of_a_stranger_takes_a_time_that_grows_with_its_length(text: str) -> None:
    begun = time.process_time()
    without_secrets(text)
    assert time.process_time() - begun < 3
