"""Links in a stranger's folder: what they lead to is not copied into an export."""

from __future__ import annotations

from pathlib import Path

import pytest
from graftkit import PluginHost
from graftkit.errors import ModelError
from graftkit.flow.base_files.open_model import load_tokenizer, open_model
from graftkit.interfaces.regular_file import check_own_file
from graftkit.testing import tiny_model_folder

NAME = "chat_template.jinja"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "home" / ".aws" / "credentials"
    path.parent.mkdir(parents=True)
    path.write_text("aws_secret_access_key = x")
    return path


def test_a_template_that_is_a_link_to_a_private_file_is_refused(tmp_path: Path, secret: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    (folder / NAME).unlink(missing_ok=True)
    (folder / NAME).symlink_to(secret)
    host = PluginHost()
    _, files = open_model(host, str(folder))
    backend = host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend))
    with pytest.raises(ModelError, match="a link to another file outside of its folder"):
        load_tokenizer(files, backend)


@pytest.mark.parametrize("way", ["at once", "over a name of its own", "by a folder"])
def test_links_that_lead_out_are_found(tmp_path: Path, secret: Path, way: str) -> None:
    folder = tmp_path / "model"
    (folder / "x").mkdir(parents=True)
    if way == "at once":
        (folder / NAME).symlink_to(secret)
    elif way == "by a folder":
        (folder / "y").symlink_to(secret.parent)
        (folder / NAME).symlink_to("y/credentials")
    else:
        (folder / NAME).symlink_to(f"x/{NAME}")
        (folder / "x" / NAME).symlink_to(secret)
    with pytest.raises(OSError, match="a link to another file"):
        check_own_file(folder / NAME)


def test_the_links_that_people_and_caches_make_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "c"
    for folder in (blobs, snapshot / "additional_chat_templates", tmp_path / "gathered"):
        folder.mkdir(parents=True)
    (blobs / "0a1b").write_text("x")
    (snapshot / NAME).symlink_to("../../blobs/0a1b")
    (snapshot / "additional_chat_templates" / "tool.jinja").symlink_to("../../../blobs/0a1b")
    (tmp_path / "gathered" / NAME).symlink_to(snapshot / NAME)
    (snapshot / "own").write_text("x")
    (snapshot / "other").symlink_to("own")
    for path in (snapshot / NAME, snapshot / "additional_chat_templates" / "tool.jinja", snapshot / "other"):
        check_own_file(path)
    check_own_file(tmp_path / "gathered" / NAME)
