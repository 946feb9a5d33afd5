"""A kind of plugin stands in one place, and everything that treats kinds alike reads it there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol, get_args

import graftkit
import graftkit.testing
import pytest
from graftkit import PluginHost
from graftkit.interfaces.kinds import KINDS, Kind, KindSpec, Section
from graftkit.interfaces.provider import import_target
from graftkit.recipe.bind import bind
from graftkit.recipe.document import Document
from graftkit.recipe.json_schema import recipe_schema
from graftkit.recipe.load import LoadedRecipe
from graftkit.recipe.reference import recipe_reference
from graftkit.recipe.schema.data import DatasetSection
from graftkit.recipe.schema.providers import ProviderSection
from graftkit.recipe.schema.recipe import Recipe
from graftkit.recipe.sections import model_of
from graftkit.scaffold.check import contract_module, find_offers
from graftkit.scaffold.new import TEMPLATES, new_plugin
from graftkit.testing import Contract
from pydantic import BaseModel, Field, ValidationError

DOCS = Path(__file__).parents[3] / "docs"

MODULE = '''"""Reads records."""

from {{ module }}.config import {{ cls }}Config


class {{ cls }}:
    """Reads records."""

    def __init__(self, config: {{ cls }}Config) -> None:
        self.limit = config.limit

    def read(self, path: str) -> list[str]:
        """Returns the records of a file."""
        return [path] * self.limit
'''
CONFIG = '''"""Fields."""

from graftkit import ProviderConfig
from pydantic import Field


class {{ cls }}Config(ProviderConfig):
    """Which records are read."""

    limit: int = Field(default=2, description="records at most")
'''
TEST = "from graftkit.testing import ScorerContract\n"


class Scorer(Protocol):
    """Reads records."""

    def read(self, path: str) -> list[str]: ...


class ScorerContract(Contract):
    """What a scorer promises."""

    kind: ClassVar[Any] = "scorer"


class RecipeWithScorer(Recipe):
    """A recipe that chooses a scorer, too."""

    scorer: ProviderSection = Field(default=ProviderSection(use="mine"), description="what scores answers")


@pytest.fixture
def scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A ninth kind, registered by an entry in the table, with its templates."""
    spec = KindSpec(
        plural="scorers",
        hook="graftkit_scorers",
        summary="Offer scorers.",
        protocol=f"{__name__}:Scorer",
        contract=f"{__name__}:ScorerContract",
        sections=(Section(("scorer",)),),
        scaffold=("config",),
    )
    monkeypatch.setitem(KINDS, "scorer", spec)  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Scorer=Scorer, ScorerContract=ScorerContract))
    templates = tmp_path / "templates"
    templates.mkdir()
    for path in TEMPLATES.iterdir():
        (templates / path.name).write_text(path.read_text())
    for name, text in {"scorer.py": MODULE, "scorer.config.py": CONFIG, "scorer.test.py": TEST}.items():
        (templates / f"{name}.jinja").write_text(text)
    monkeypatch.setattr("graftkit.scaffold.new.TEMPLATES", templates)
    for module in ("json_schema", "reference"):
        monkeypatch.setattr(f"graftkit.recipe.{module}.Recipe", RecipeWithScorer)
    kind: Any = "scorer"
    monkeypatch.syspath_prepend(str(new_plugin("mine", kind, tmp_path)))
    yield importlib.import_module("graftkit_mine")
    for name in [name for name in sys.modules if name.partition(".")[0] == "graftkit_mine"]:
        del sys.modules[name]


def test_a_ninth_kind_is_an_entry_of_the_table(scorer: Any) -> None:
    host = PluginHost(plugins=[scorer], strict=True)
    kind: Any = "scorer"
    registered = host.registry.resolve(kind, "mine")
    made = host.registry.create(registered, host.registry.config_class(registered)())
    assert made.read("a") == ["a", "a"]
    assert f"from {__name__} import ScorerContract as" in contract_module(find_offers(host, "mine"))


def test_a_ninth_kind_has_a_contract(scorer: Any) -> None:
    class TestMine(graftkit.testing.ScorerContract):  # type: ignore[misc, name-defined]
        provider = "mine"

        def host(self) -> PluginHost:
            return PluginHost(plugins=[scorer], strict=True)

    contract = TestMine()
    contract.test_it_has_everything_that_its_interface_names()
    contract.test_every_field_is_described_and_has_a_schema()
    contract.test_its_fields_come_back_from_a_manifest()
    assert contract.interface is Scorer


def test_a_ninth_kind_has_a_section_of_the_recipe(scorer: Any) -> None:
    host = PluginHost(plugins=[scorer], strict=True)
    data = {"model": "./m", "data": {"train": "a.jsonl"}, "scorer": {"use": "mine", "limit": 3}}
    found = bind(LoadedRecipe(RecipeWithScorer.model_validate(data), Document(data, "recipe")), host)
    assert found.resolved()["scorer"] == {"use": "mine", "limit": 3}
    assert found.providers()["scorer"]["config"] == {"limit": 3}
    section = recipe_schema(host)["properties"]["scorer"]
    assert section["default"] == "mine" and section["anyOf"][1]["properties"]["limit"]["default"] == 2
    assert "### `scorer: mine`" in recipe_reference(host)


def test_the_table_has_every_kind_and_no_hook_twice() -> None:
    assert get_args(Kind) == tuple(KINDS)
    assert len({spec.hook for spec in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_table_names_is_there(kind: Kind) -> None:
    spec = KINDS[kind]
    protocol, contract = import_target(spec.protocol), import_target(spec.contract)
    assert getattr(graftkit, protocol.__name__) is protocol
    assert getattr(graftkit.testing, contract.__name__) is contract
    assert issubclass(contract, Contract) and contract.kind == kind
    assert spec.hook in dir(PluginHost(autoload=False).hook)
    templates = {f"{kind}.py", f"{kind}.test.py", *(f"{kind}.{part}.py" for part in spec.scaffold)}
    assert all(TEMPLATES.joinpath(f"{name}.jinja").is_file() for name in templates)
    assert (DOCS / "plugins" / f"{kind}.md").is_file()
    page = (DOCS / "plugins.md").read_text(encoding="utf-8")
    assert f"`{spec.hook}`" in page and f"plugins/{kind}.md" in page


@pytest.mark.parametrize(
    "section", [section for spec in KINDS.values() for section in spec.sections], ids=lambda found: ".".join(found.path)
)
def test_the_schema_has_each_section_and_its_short_form(section: Section) -> None:
    model = model_of(Recipe, section.path)
    assert "use" in model.model_fields
    parent: type[BaseModel] = model_of(Recipe, section.path[:-1])
    key = section.path[-1]
    data: dict[str, Any] = {"model": "./m", "data": {"train": "a.jsonl"}} if parent is Recipe else {}
    if key == "embedding_init":
        data["extend"] = {}
    if parent is DatasetSection:
        data["path"] = "a.jsonl"
    if not section.short_form:
        with pytest.raises(ValidationError):
            parent.model_validate({**data, key: "word"})
        return
    found = getattr(parent.model_validate({**data, key: "word"}), key)
    assert getattr(found[0] if isinstance(found, list) else found, section.short_form) == "word"
