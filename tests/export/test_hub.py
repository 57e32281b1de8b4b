import json
import os
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import ModelCard, hub_mixin
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from whatwhere import SWWAE, runs
from whatwhere.core import InputError
from whatwhere.data.images import Images
from whatwhere.export import hub
from whatwhere.export.mixin import HubRun, card

FILES = ["README.md", "config.json", "model.safetensors"]
SECRET = "/home/someone/scans of patients"


@pytest.fixture(scope="module")
def learner(images: Images) -> SWWAE:
    model = SWWAE("(4)3c-2p", epochs=1, random_state=0).fit(images.x, images.y)
    model.name_classes(images.classes)
    return model


@pytest.fixture(scope="module")
def run(learner: SWWAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, with what only its owner should see."""
    folder = learner.save(tmp_path_factory.mktemp("runs") / "run")
    config = runs.read_config(folder)
    config |= {
        "data": {"name": SECRET, "skipped": [{"file": "patient 7.png", "reason": "cut short"}]},
        "job": {"data": SECRET},
        "command": f"whatwhere fit {SECRET}",
        "hardware": {"processor": "mine"},
    }
    runs.write_json(folder / runs.CONFIG, config)
    told = {
        "n": 1000,
        "accuracy": 0.9096,
        "error": 9.04,
        "interval": [7.41, 10.98],
        "reconstruction_mse": 0.00318,
    }
    runs.write_json(folder / runs.EVALUATION, told)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


# To a folder and back.


def test_what_is_saved_for_the_hub_is_loaded_with_the_same_bits(run, learner, images, tmp_path):
    hub.save_pretrained(run, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    loaded: Any = hub.from_pretrained(tmp_path / "out")
    assert type(loaded) is SWWAE
    assert np.array_equal(loaded.predict_proba(images.x), learner.predict_proba(images.x))
    assert np.array_equal(loaded.transform(images.x), learner.transform(images.x))
    assert np.array_equal(loaded.reconstruct(images.x), learner.reconstruct(images.x))
    assert loaded.classes_.tolist() == ["ant", "büffel", "cat"]


def test_folders_may_be_named_by_text(run, tmp_path):
    hub.save_pretrained(str(run), str(tmp_path / "out"))
    assert type(hub.from_pretrained(str(tmp_path / "out"))) is SWWAE


def test_what_tells_of_its_owner_is_not_published(run, tmp_path):
    hub.save_pretrained(run, tmp_path / "out")
    for name in ("README.md", "config.json"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert not any(word in text for word in ("someone", "patient 7", "mine", str(run)))


def test_a_folder_that_holds_something_is_refused_and_kept(run, tmp_path):
    before = (run / runs.CONFIG).read_bytes()
    with pytest.raises(InputError, match="is not empty"):
        hub.save_pretrained(run, run)
    assert (run / runs.CONFIG).read_bytes() == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        hub.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="is not a run folder"):
        hub.save_pretrained(tmp_path, tmp_path / "out")


# The model card.


def test_a_card_says_what_the_run_is_and_how_good(run, tmp_path):
    hub.save_pretrained(run, tmp_path / "out")
    said: Any = ModelCard.load(tmp_path / "out" / "README.md")
    assert said.data.library_name == "whatwhere"
    assert said.data.pipeline_tag == "image-classification"
    assert said.data.license is None
    (result,) = said.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.9096)
    assert result.dataset_name == "scans of patients"
    for line in (
        "Stacked what-where auto-encoder, with labels or without, trained with whatwhere.",
        "| Data | scans of patients: 130 training images of 11 x 9 pixels, gray |",
        "| Labels | 130 in 3 classes |",
        "| Test error | 9.04 % (95 % interval 7.41 to 10.98), on 1,000 images |",
        "| Reconstruction error | 0.00318, the mean square a pixel in \\[0, 1\\] |",
        "# images: (n, 11, 9), uint8, or float32 in [0, 1]",
    ):
        assert line in said.content.splitlines()


def test_the_code_on_a_card_runs(run, images, tmp_path):
    hub.save_pretrained(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "out"))
    said: dict[str, Any] = {"images": images.x[:, 0]}
    exec(code, said)
    assert set(said["labels"]) <= set(images.classes)
    assert said["p"].shape == (130, 3)


def test_a_card_of_a_run_without_labels_or_test_leaves_out_what_is_not_known(color):
    model = SWWAE("(4)3c-2p", epochs=1, random_state=0).fit(color.x)
    said: Any = card(model.describe(), {}, repo_id="someone/blind")
    assert said.data.pipeline_tag == "image-feature-extraction"
    assert said.data.eval_results is None
    assert "# blind" in said.content.splitlines()
    assert "| Labels | none |" in said.content.splitlines()
    assert "(n, 3, 8, 8)" in said.content
    assert "Test error" not in said.content
    assert "predict" not in said.content


def test_a_card_tells_a_likelihood_with_how_it_was_found(learner):
    found = {"n": 1000, "log_likelihood": -99.928, "log_likelihood_how": "log Z = 4.2 (exact)"}
    said: Any = card(learner.describe(), found, repo_id="someone/it")
    (row,) = [line for line in said.content.splitlines() if "likelihood" in line]
    assert row == (
        "| Log-likelihood | -99.93 nats an image, the mean over 1,000 images; log Z = 4.2 (exact) |"
    )


@pytest.mark.parametrize(
    ("model", "what"), [("rbm", "Restricted Boltzmann machine"), ("whitening", "ZCA or PCA")]
)
def test_names_in_what_a_card_says_keep_their_capitals(learner, model: str, what: str):
    text = str(card(learner.describe() | {"model": model}, {}, repo_id="a/b"))
    assert f"\n{what}" in text


def test_names_cannot_break_the_card(learner):
    config = learner.describe() | {"data": {"name": "a|b\n# {{ c }} <i>"}}
    said: Any = card(config, {"n": 1, "accuracy": 1.0, "error": 0.0}, repo_id="someone/it")
    (row,) = [line for line in said.content.splitlines() if line.startswith("| Data")]
    assert r"a\|b # {{ c }} \<i\>: 130" in row
    assert said.data.eval_results[0].dataset_name == "a|b\n# {{ c }} <i>"


# To the hub and back, without a network.


class Hub:
    """Stands for the hub: keeps what it is told to upload."""

    files: dict[str, bytes]
    made: dict[str, Any]

    def __init__(self, token: str | None = None) -> None:
        assert token is None

    def create_repo(self, **settings: Any) -> Any:
        Hub.made = settings
        return type("Repository", (), {"repo_id": settings["repo_id"]})

    def upload_folder(self, *, folder_path: Path, **_: Any) -> str:
        Hub.files = {path.name: path.read_bytes() for path in folder_path.iterdir()}
        return "https://hub/commit/1"


def test_uploading_makes_a_private_repository_of_three_files(run, monkeypatch):
    monkeypatch.setattr(hub_mixin, "HfApi", Hub)
    assert hub.push_to_hub(run, "someone/ants") == "https://hub/commit/1"
    assert Hub.made == {"repo_id": "someone/ants", "private": True, "exist_ok": True}
    assert sorted(Hub.files) == FILES
    assert b'from_pretrained("someone/ants")' in Hub.files["README.md"]
    assert json.loads(Hub.files["config.json"])["classes"] == ["ant", "büffel", "cat"]
    hub.push_to_hub(run, "someone/ants", private=False)
    assert Hub.made["private"] is False


def test_only_two_files_of_a_repository_are_downloaded(run, monkeypatch, tmp_path):
    hub.save_pretrained(run, tmp_path / "there")
    wanted: dict[str, Any] = {}

    def download(name: str, **settings: Any) -> str:
        wanted.update(settings, name=name)
        return str(tmp_path / "there")

    monkeypatch.setattr(hub_mixin, "hf_hub_download", lambda **_: tmp_path / "there/config.json")
    monkeypatch.setattr("whatwhere.export.mixin.snapshot_download", download)
    assert type(hub.from_pretrained("someone/ants", revision="v1")) is SWWAE
    assert (wanted["name"], wanted["revision"]) == ("someone/ants", "v1")
    assert wanted["allow_patterns"] == ["config.json", "model.safetensors"]


def test_without_a_network_one_line_says_so(run):
    for failing in (
        lambda: hub.push_to_hub(run, "someone/ants"),
        lambda: hub.from_pretrained("someone/ants"),
    ):
        with pytest.raises(InputError, match="the hub cannot be reached; look at") as refused:
            failing()
        assert "\n" not in str(refused.value)
        is_load = str(refused.value).startswith("cannot load")
        assert ("there is no such folder here" in str(refused.value)) is is_load


@pytest.mark.parametrize("name", ["a/b/c", "two words", os.fspath(Path("no") / "such" / "folder")])
def test_a_name_that_the_hub_cannot_have_is_refused(name):
    with pytest.raises(InputError, match="it takes USER/NAME, or a folder"):
        hub.from_pretrained(name)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RepositoryNotFoundError, "no such repository"),
        (HfHubHTTPError, "the hub refused"),
        (LocalEntryNotFoundError, "cannot be reached"),
    ],
)
def test_what_the_hub_answers_is_told_with_the_way_out(run, monkeypatch, error, says):
    failure = error.__new__(error)
    failure.args = ("401 Client Error.\nmore",)

    def push(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(HubRun, "push_to_hub", push)
    with pytest.raises(InputError, match=f"cannot upload .*run to someone/ants: .*{says}"):
        hub.push_to_hub(run, "someone/ants")


def test_without_the_extra_the_way_to_get_it_is_named(run, monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'whatwhere\[hub\]'"):
        hub.push_to_hub(run, "someone/ants")
