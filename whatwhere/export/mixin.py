"""A run as huggingface_hub's mixin has it. Imported only where that package is used."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import (
    EvalResult,
    ModelCard,
    ModelCardData,
    ModelHubMixin,
    snapshot_download,
)

from whatwhere import models, runs

CARD = """\
---
{{ card_data }}
---

# {{ title }}

{{ what }}, trained with whatwhere.

| | |
|---|---|
{% for name, value in facts.items() -%}
| {{ name }} | {{ value }} |
{% endfor %}
## Use

```
pip install 'whatwhere[hub]'
```

```python
from whatwhere.export.hub import from_pretrained

model = from_pretrained("{{ repo_id }}")
# images: {{ input }}, uint8, or float32 in [0, 1]
{% for call in calls -%}
{{ call }}
{% endfor -%}
```

The repository holds `config.json` and `model.safetensors`. Nothing in it is ever unpickled.

## Limits

Measured numbers are of test images from the same data. On other images it may do worse.

No license is stated. Whoever publishes this model chooses one: `license:` in the head of this file.
"""


class HubRun(ModelHubMixin):
    """A finished run: its learner, and what is told of it.

    Parameters
    ----------
    run : Path
        A run folder.

    Attributes
    ----------
    learner : Learner
    """

    def __init__(self, run: Path) -> None:
        self.run, self.learner = run, models.load(run)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.learner.save(save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> "HubRun":
        if Path(model_id).is_dir():
            return cls(Path(model_id))
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[runs.CONFIG, runs.WEIGHTS],
        )
        return cls(Path(folder))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the card; `repo_id` says where the run is published, if it is known."""
        config = runs.read_config(self.run)
        told = self.run / runs.EVALUATION
        evaluation = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
        return card(config, evaluation, repo_id=kwargs.get("repo_id", "FOLDER"))


def card(config: dict[str, Any], evaluation: dict[str, Any], *, repo_id: str) -> ModelCard:
    """Return the model card of a run.

    Parameters
    ----------
    config, evaluation : dict
        ``config.json`` and ``evaluation.json``; the latter may be empty.
    repo_id : str
        What `from_pretrained` is given to load it.
    """
    classes = config["classes"]
    # The last part only: a path tells of the machine that it is on.
    data = Path(str(config.get("data", {}).get("name", ""))).name
    task = "image-classification" if classes else "image-feature-extraction"
    title = repo_id.rsplit("/", 1)[-1] if "/" in repo_id else f"{config['model']} {data}".strip()
    about = ModelCardData(
        library_name="whatwhere",
        pipeline_tag=task,
        tags=["whatwhere", config["model"], "model_hub_mixin"],
        model_name=title,
        eval_results=_results(evaluation, data, task),
    )
    c, h, w = config["spec"]["shape"]
    what = models.CONTENTS[config["model"]][2]
    calls = ["features = model.transform(images)"]
    if classes:
        calls = ["labels = model.predict(images)", "p = model.predict_proba(images)", *calls]
    return ModelCard.from_template(
        about,
        template_str=CARD,
        title=title,
        what=what[0].upper() + what[1:],  # names within keep their capitals
        facts={name: _cell(value) for name, value in _facts(config, evaluation, data).items()},
        input=f"(n, {h}, {w})" if c == 1 else f"(n, {c}, {h}, {w})",
        calls=calls,
        repo_id=repo_id,
    )


def _results(evaluation: dict[str, Any], data: str, task: str) -> list[EvalResult] | None:
    if not data or evaluation.get("accuracy") is None:
        return None
    return [
        EvalResult(
            task_type=task,
            dataset_type=data,
            dataset_name=data,
            dataset_split="test",
            metric_type="accuracy",
            metric_value=evaluation["accuracy"],
        )
    ]


def _facts(config: dict[str, Any], evaluation: dict[str, Any], data: str) -> dict[str, str]:
    """Return what the card's table says, by name."""
    spec, classes = config["spec"], config["classes"]
    c, h, w = spec["shape"]
    kind = {1: "gray", 3: "color"}.get(c, f"{c} channels")
    architecture = config["params"].get("architecture")
    facts = {
        "Model": f"{config['model']}, {sum(config['parameters'].values()):,} parameters"
        + (f", {architecture}" if architecture else ""),
        "Data": f"{data}: " * bool(data)
        + f"{spec['n_samples']:,} training images of {h} x {w} pixels, {kind}",
        "Labels": f"{spec['n_labeled']:,} in {len(classes)} classes" if classes else "none",
    }
    if classes:
        facts["Classes"] = ", ".join(map(str, classes))
    if evaluation.get("error") is not None:
        said = f"{evaluation['error']:.2f} %"
        if evaluation.get("interval"):
            low, high = evaluation["interval"]
            said += f" (95 % interval {low:.2f} to {high:.2f})"
        facts["Test error"] = f"{said}, on {evaluation['n']:,} images"
    if evaluation.get("reconstruction_mse") is not None:
        facts["Reconstruction error"] = (
            f"{evaluation['reconstruction_mse']:.5f}, the mean square a pixel in [0, 1]"
        )
    if evaluation.get("log_likelihood") is not None:
        how = evaluation.get("log_likelihood_how")
        facts["Log-likelihood"] = (
            f"{evaluation['log_likelihood']:.2f} nats an image, the mean over "
            f"{evaluation['n']:,} images" + (f"; {how}" if how else "")
        )
    return facts


def _cell(text: str) -> str:
    """Return text as it can stand in a table of Markdown."""
    marked = "".join(f"\\{letter}" if letter in "\\`*_[]<>|" else letter for letter in text)
    return " ".join(marked.split())
