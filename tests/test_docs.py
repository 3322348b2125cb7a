"""README and docs: links lead somewhere, the README stays short, the site holds every page, and named commands, keys and tests exist."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from segkd.config.keys import flatten
from segkd.config.paths import list_options

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples/my_parts/my_parts/configs"
REPOSITORY = "https://github.com/segkd/segkd/blob/main/"
"""How pages of the site link to files outside docs/."""
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PARTS = (
    ("dataset", "dataset"),
    ("student", "model"),
    ("teacher", "model"),
    ("adversary", "adversary"),
    ("adversary.gan_loss", "adversary/gan_loss"),
    ("optimizers.student", "optimizer"),
    ("optimizers.discriminator", "optimizer"),
    ("schedule", "schedule"),
)
"""Where the keys of a part are in a config, and the config group of the part."""
FILE_SUFFIXES = (".yaml", ".safetensors", ".onnx", ".xml", ".bin", ".torchscript")
"""Files named like keys: `student.yaml`."""
LIGHTNING_NAMES = {
    "logger.experiment",
    "trainer.callback_metrics",
    "trainer.current_epoch",
    "trainer.global_step",
    "trainer.should_stop",
}
"""What Python pages read of Lightning's Trainer; no keys."""
MAX_WORDS = 900
MAX_TABLE_LINE = 160


def without_code(text: str) -> str:
    """Return the text without fenced code blocks."""
    return re.sub(r"^([ ]*)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as mkdocs and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), flags=re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip()) for heading in plain}


def links(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links and images."""
    yield from re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))


def broken_links(page: Path, root: Path) -> list[str]:
    """Return the links of a page into the repository that lead nowhere."""
    broken = []
    for link in links(page):
        if link.startswith(REPOSITORY):
            base, target = root, link.removeprefix(REPOSITORY)
        elif re.match(r"[a-z]+:", link):
            continue
        else:
            base, target = page.parent, link
        path, _, anchor = target.partition("#")
        file = base / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, ROOT) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Some `code`: a heading\n")
    page = tmp_path / "page.md"
    page.write_text(
        f"[a](other.md) [b](other.md#some-code-a-heading) [c](no.md) ![d](no.png) [e](other.md#no) [f](#no) [g]({REPOSITORY}no.md)\n"
        "[h](https://example.org)\n```\n[i](no.md)\n```\n"
    )
    assert broken_links(page, tmp_path) == ["no.md", "no.png", "other.md#no", "#no", f"{REPOSITORY}no.md"]


def test_links_leave_the_site_only_by_address() -> None:
    """A relative link out of docs/ works on GitHub and is broken on the site."""
    docs = ROOT / "docs"
    for page in docs.rglob("*.md"):
        for link in links(page):
            if not re.match(r"[a-z]+:|#", link):
                assert (page.parent / link).resolve().is_relative_to(docs), f"{page.relative_to(ROOT)}: {link}"


def test_readme_is_short() -> None:
    """All words count, those of code blocks and tables too."""
    assert len((ROOT / "README.md").read_text().split()) <= MAX_WORDS


def test_readme_tables_are_narrow() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in lines if line.lstrip().startswith("|") and len(line) > MAX_TABLE_LINE] == []


def test_site_holds_every_page() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    sections = (entry for part in config["nav"] for entry in part.values())
    listed = []
    for entry in sections:
        listed += [entry] if isinstance(entry, str) else [path for page in entry for path in page.values()]
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_tests_exist(page: Path) -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", page.read_text()))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_commands_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it names old ones
    package = ROOT / "src" / "segkd"
    named = set(re.findall(r"(?:-m |`)segkd\.([a-z]\w*)(?![\w.(])", page.read_text()))
    missing = [name for name in sorted(named) if not ((package / f"{name}.py").is_file() or (package / name).is_dir())]
    assert missing == []


@functools.cache
def list_keys() -> set[str]:
    """Return the dotted keys of all commands: those of the generated reference, and those of each part's yaml file."""
    keys = set(
        re.findall(r"^\| `(?:-m )?([^`]+)`", (ROOT / "docs/reference/config.md").read_text(), flags=re.MULTILINE)
    )
    for prefix, group in PARTS:
        for file in (ROOT / "configs" / group).glob("*.yaml"):
            keys |= {f"{prefix}.{key}" for key, _ in flatten(yaml.safe_load(file.read_text()))}
    for group in ("loss", "callbacks", "logger"):  # a file of these has the part's name as its key
        for file in (*(ROOT / "configs" / group).glob("*.yaml"), *(EXAMPLES / group).glob("*.yaml")):
            keys |= {f"{group}.{key}" for key, _ in flatten(yaml.safe_load(file.read_text()))}
    return keys


def find_unknown_keys(text: str, keys: set[str]) -> set[str]:
    """Return the dotted keys, experiments, presets and adversaries that a page names and no config has.

    Left out: keys that `+` adds, Hydra's own, and experiments that the page itself writes.
    """
    named = set(re.findall(r"(?<![\w./@+-])([a-z_]+(?:[./@][a-z_0-9]+)+)=", text))
    heads = {key.partition(".")[0] for key in keys if "." in key}
    spans = {span for span in re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)`", text) if span.partition(".")[0] in heads}
    named |= {span for span in spans - LIGHTNING_NAMES if not span.endswith(FILE_SUFFIXES)}
    unknown = {key for key in named - keys if not key.startswith(("hydra.", "hydra/"))}
    for group in ("experiment", "preset", "adversary"):
        options = {
            *list_options(group),
            *list_options(group, EXAMPLES),
            "null",
            *re.findall(rf"/{group}/(\w+)\.yaml", text),
        }
        chosen = re.findall(rf"(?<![\w./@]){group}=([a-z]\w*(?:/\w+)*)", text)
        unknown |= {f"{group}={name}" for name in chosen if name not in options}
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_keys_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it names old ones
    assert find_unknown_keys(page.read_text(), list_keys()) == set()


def test_unknown_keys_are_found() -> None:
    text = (
        "`data.unlabelled=DIR` and `data.unlabelled_ratio`, with `experiment=espnet_camvid_unlabelled`, `preset=conference`\n"
        "```bash\nsegkd train adversary=critic adversary/form=hinge\n"
        "segkd train +student.added=3 student.depht=3 dataset.held_out=A loss.hint.weight=2\n```\n"
        "`student.yaml`, `data.unlabeled`, `experiment=quickstart`, `model@teacher=none`, `hydra.sweeper.n_trials=3`\n"
        "`experiment=mine` after `# mine/experiment/mine.yaml`\n"
    )
    assert find_unknown_keys(text, list_keys()) == {
        "data.unlabelled", "data.unlabelled_ratio", "experiment=espnet_camvid_unlabelled", "preset=conference",
        "adversary=critic", "adversary/form", "student.depht",
    }  # fmt: skip


def test_pages_named_in_code_exist() -> None:
    """Errors, configs and notebooks name pages."""
    folders = [ROOT / name for name in ("src", "configs", "notebooks")]
    files = [file for folder in folders for kind in ("py", "yaml", "ipynb") for file in folder.rglob(f"*.{kind}")]
    named = {page for file in files for page in re.findall(r"docs/[\w/.-]+\.md", file.read_text())}
    assert named
    assert [page for page in sorted(named) if not (ROOT / page).is_file()] == []


@pytest.mark.parametrize(
    ("group", "page"),
    [
        ("dataset", "reference/datasets.md"),
        ("experiment", "reference/cli.md"),
        ("loss", "reference/losses.md"),
        ("model", "reference/networks.md"),
        ("preset", "reference/losses.md"),
        ("sweep", "how-to/sweeps.md"),
    ],
)
def test_every_part_is_documented(group: str, page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    names = {file.stem for file in (ROOT / "configs" / group).glob("*.yaml")} - {"none"}
    missing = [name for name in sorted(names) if not re.search(rf"(`|\| ){name}(`| \|)", text)]
    assert names
    assert missing == []


def test_every_method_of_the_camvid_study_is_documented() -> None:
    text = (ROOT / "docs/results/camvid.md").read_text()
    plan = yaml.safe_load((ROOT / "configs/plan/camvid.yaml").read_text())
    assert [name for name in plan["methods"] if f"`{name}`" not in text] == []
