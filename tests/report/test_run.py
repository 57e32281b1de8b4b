import re
from base64 import b64encode

import pytest

from whatwhere.report import render


def test_the_numbers_of_the_files_stand_on_the_page(folders, page):
    path = folders.run()
    text = page(render(path)).text.replace("\N{NO-BREAK SPACE}", " ")
    told = [
        "9.04 %", "8.49 to 9.62", "20.31", "19.53 to 21.11", "22.53", "0.9096", "0.003182",
        "60,000 images", "59,900", "(16)5c-2p-(32)3c-2p", "0.002", "25,788", "15,690", "1,200",
        "mixed: 50 labeled + 50 unlabeled", "loss: Adam on all", "ab12cd34ef567890", "2.13.0",
        "4,800 images a second", "4 min 10 s",
        "whatwhere fit mnist --model swwae --labels 100 --out runs/swwae-100",
    ]  # fmt: skip
    assert [number for number in told if number not in text] == []


def test_the_summary_says_when_a_floor_cannot_be_told_apart(folders, page):
    def text(name, interval):
        evaluation = folders.evaluation()
        evaluation["floors"][0] |= {"interval": interval}
        return page(
            render(folders.run(name, evaluation=evaluation, metrics=[], pictures=False))
        ).text

    assert "does not tell them apart" in text("near", [9.5, 10.1])
    assert "does worse than CNN on the labels alone" in text("better", [5.0, 6.0])
    assert "the test images do tell them apart" in text("worse", [19.5, 21.1])


def test_a_confusion_matrix_is_a_table_with_every_count(folders, page):
    evaluation = folders.evaluation()
    html = render(folders.run(evaluation=evaluation, metrics=[], pictures=False))
    table = re.search(r'<table class="heat">.*?</table>', html, re.DOTALL)
    assert table
    counts = [int(n) for n in re.findall(r"<td[^>]*>(\d+)</td>", table[0])]
    assert counts == [count for row in evaluation["confusion"] for count in row]
    assert page(table[0]).text.startswith("Confusion matrix")


def test_a_confusion_matrix_of_a_hundred_classes_is_a_picture_and_a_list(folders, page):
    evaluation = folders.evaluation(100, 100)
    evaluation["confusion"][7][3] += 50
    html = render(folders.run(evaluation=evaluation, metrics=[], pictures=False))
    assert '<table class="heat">' not in html
    found = page(html)
    assert "Confusion matrix of 100 classes" in html
    assert "The other 88 classes" in found.text
    assert len(html) < 400_000


def test_classes_stand_from_the_hardest_to_the_easiest(folders):
    evaluation = folders.evaluation()
    evaluation["confusion"] = [[10, 0, 0], [3, 7, 0], [1, 0, 9]]
    evaluation["classes"] = ["ant", "bee", "cow"]
    html = render(folders.run(evaluation=evaluation, metrics=[], pictures=False))
    table = html[html.index("the hardest first") :]
    assert re.findall(r'<th scope="row">(\w+)</th>', table)[:3] == ["bee", "cow", "ant"]
    assert "30.0" in table
    assert "ant (3)" in table


def test_there_is_a_curve_for_each_term_and_measure(folders, page):
    stages = [folders.stage("pretraining", 20), folders.stage("fine-tuning", 20)]
    lines = folders.metrics(stages, validation=True)
    path = folders.run(config=folders.config(stages), metrics=lines, pictures=False)
    html = render(path)
    charts = html[html.index('<div class="charts">') : html.index('<section id="result"')]
    titles = re.findall(r"<strong>(.*?)</strong>", charts)
    assert titles == [
        "validation: error", "loss: reconstruction", "loss: middle", "loss: nll", "learning rate",
    ]  # fmt: skip
    assert charts.count("<svg") == 5
    assert charts.count("fine-tuning") == 5


def test_stages_too_short_for_their_names_are_numbered(folders):
    stages = [folders.stage(f"a long name {i}", 2) for i in range(6)]
    html = render(folders.run(config=folders.config(stages), pictures=False))
    assert "its number is that of the table above" in html


def test_a_learning_rate_that_never_moves_has_no_curve(folders):
    lines = [line | {"learning_rate": 0.1} for line in folders.metrics([folders.stage("joint", 5)])]
    assert "learning rate</strong>" not in render(folders.run(metrics=lines, pictures=False))


def test_a_stopped_run_says_how_to_go_on(folders, page):
    lines = folders.metrics([folders.stage("joint", 6)])
    path = folders.run("my run", metrics=lines, evaluation={}, weights=False, checkpoint=True)
    text = page(render(path)).text
    assert "Training is not finished: 6 of 20 epochs are recorded." in text
    assert f"whatwhere fit --resume '{path}'" in text
    assert "whatwhere predict" not in text


def test_a_killed_run_without_a_checkpoint_is_not_offered_to_be_resumed(folders, page):
    path = folders.run(metrics=[], evaluation={}, weights=False, pictures=False)
    text = page(render(path)).text
    assert "no checkpoint to go on from" in text
    assert "--resume" not in text


def test_a_diverged_run_names_the_term_the_stage_and_the_cure(folders, page):
    lines = folders.metrics([folders.stage("joint", 4)])
    lines[-1]["loss/nll"] = float("nan")
    path = folders.run(metrics=lines, evaluation={}, weights=False, checkpoint=True)
    text = page(render(path)).text
    assert "in epoch 4 of stage joint, nll was no longer a finite number" in text
    assert "--set learning_rate=0.0005" in text
    assert "--resume" not in text


def test_a_run_without_labels_promises_no_classes(folders, page):
    config = folders.config()
    config["data"] |= {"n_labeled": 0}
    measured = {"n": 10000, "error": None, "reconstruction_mse": 0.00218}
    text = page(render(folders.run(config=config, evaluation=measured))).text
    assert "without any labels" in text
    assert "0.00218" in text
    assert "whatwhere predict" not in text
    assert "--probe linear --labels 100" in text


def test_a_run_without_a_test_part_says_so(folders, page):
    config = folders.config()
    config["data"] |= {"n_test": 0}
    text = page(render(folders.run(config=config, evaluation={}))).text
    assert "The data have no test part" in text
    assert "--test-fraction" in text


def test_pictures_are_in_the_page_in_their_order(folders, page):
    path = folders.run()
    sources = [image["src"] for image in page(render(path)).all("img")]
    files = [path / "panels" / f"{n}.png" for n in ("mistakes", "reconstructions", "filters")]
    assert sources == [
        f"data:image/png;base64,{b64encode(file.read_bytes()).decode()}" for file in files
    ]


@pytest.mark.parametrize("value", [None, ...], ids=["null", "absent"])
@pytest.mark.parametrize("part", ["config", "data", "evaluation"])
def test_every_optional_part_may_be_missing(folders, page, part, value):
    whole = {"config": folders.config(), "evaluation": folders.evaluation()}
    whole["data"] = whole["config"]["data"]
    for i, key in enumerate(whole[part]):
        if key == "format":
            continue
        config, evaluation = folders.config(), folders.evaluation()
        target = {"config": config, "data": config["data"], "evaluation": evaluation}[part]
        if value is ...:
            del target[key]
        else:
            target[key] = value
        # A run without epochs has no curves, which are what takes time.
        path = folders.run(str(i), config=config, metrics=[], evaluation=evaluation, pictures=False)
        assert page(render(path)).faults == []
