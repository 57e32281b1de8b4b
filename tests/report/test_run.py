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
    assert "--probe linear --labels all" in text


def test_a_run_without_a_test_part_says_so(folders, page):
    config = folders.config()
    config["data"] |= {"n_test": 0}
    text = page(render(folders.run(config=config, evaluation={}))).text
    assert "The data have no test part" in text
    assert "--test-fraction" in text
    config["data"] |= {"n_validation": 60}
    lines = [{"stage": "joint", "epoch": 0, "loss/nll": 1.0, "validation/error": 20.0}]
    path = folders.run("judged", config=config, evaluation={}, metrics=lines)
    (path / "model.safetensors").touch()
    text = page(render(path)).text
    assert "20.0 % of the 60 validation images got a wrong class" in text.replace(
        "\N{NO-BREAK SPACE}", " "
    )


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


def test_skipped_files_are_counted_listed_and_named(folders, page):
    text = page(render(folders.practitioner())).text
    assert "3 files of the data could not be used" in text
    assert "skipped.csv" in text
    assert "The first 2" in text
    assert "odd/1.png cut short" in text
    assert "Skipped files" not in page(render(folders.run(pictures=False))).text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"class_weight": "balanced"}, "The loss weighs each class equally."),
        ({"class_weight": None}, "fit with --set class_weight=balanced"),
    ],
)
def test_uneven_labels_are_told_with_what_was_done(folders, page, given, told):
    config = folders.config()
    config["data"]["labels_by_class"] = {str(i): 10 + 20 * (i == 3) for i in range(10)}
    config["params"] |= given
    text = page(render(folders.run(config=config, metrics=[], pictures=False))).text
    assert "The labels are uneven: 30 labels for 3, 10 for 0." in text
    assert told in text
    config["data"]["labels_by_class"]["3"] = 29
    text = page(render(folders.run("even", config=config, metrics=[], pictures=False))).text
    assert "labels are uneven" not in text


def test_the_table_of_classes_says_how_many_labels_each_had(folders):
    config = folders.config()
    config["data"]["labels_by_class"] = {str(i): 1000 + i for i in range(9)}
    html = render(folders.run(config=config, metrics=[], pictures=False))
    table = html[html.index("the hardest first") : html.index("most frequent confusions.")]
    found = re.findall(r'<th scope="row">(\d)</th><td class="num">([\d,]+)</td>', table)
    assert dict(found) == {str(i): f"1,00{i}" for i in range(9)} | {"9": "0"}


def test_the_mean_class_error_stands_beside_the_error_where_the_test_images_are_uneven(
    folders, page
):
    evaluation = folders.evaluation() | {"balanced_error": 12.5}
    even = page(render(folders.run("even", evaluation=evaluation, metrics=[]))).text
    evaluation["confusion"][1] = [n // 5 for n in evaluation["confusion"][1]]
    uneven = page(render(folders.run("uneven", evaluation=evaluation, metrics=[]))).text
    assert "mean class error" not in even
    assert "mean class error 12.50" in uneven
    assert "each class counting equally, the error of this run is 12.50" in uneven


def test_the_probabilities_are_said_to_be_off_by_so_much(folders, page):
    def text(n):
        evaluation = folders.evaluation() | {"calibration": folders.calibration(n)}
        path = folders.run(str(n), evaluation=evaluation, metrics=[], pictures=False)
        return page(render(path)).text.replace("\N{NO-BREAK SPACE}", " ")

    assert "off by 3.1 points" in text(120)
    assert "120 validation images (temperature 1.43: the model was too sure" in text(120)
    assert "Without that they would be off by 9.2 points." in text(120)
    assert "not calibrated: that takes 50 validation labels" in text(0)
    assert "--validation 0.2" in text(0)
    assert "temperature" not in text(0)


def test_what_was_chosen_for_the_images_and_where_the_run_began_are_told(folders, page):
    text = page(render(folders.practitioner())).text
    assert "chosen for these images architecture (16)5c-2p-(32)3c-2p batch_size 100" in text
    assert "went on from runs/earlier" in text


def test_the_next_commands_are_those_of_this_run_and_its_data(folders, page):
    path = folders.practitioner("my run")
    text = page(render(path)).text
    data = f"'{path}' '/home/me/my scans' --image-size 28 --fit pad"
    for line in [
        f"whatwhere predict {data} --out predictions.csv",
        f"whatwhere embed {data} --out embeddings.npz",
        f"whatwhere outliers {data} --out outliers.csv",
        f"whatwhere complete {data} --mask left --out completed.png",
        f"whatwhere evaluate '{path}' --probe linear --labels 100",
        f"whatwhere fit '/home/me/my scans' --from '{path}' --labels all --image-size 28 --fit pad "
        f"--out '{path}-next'",
    ]:
        assert line in text


def test_a_run_that_does_not_reconstruct_is_not_asked_to(folders, page):
    evaluation = folders.evaluation() | {"reconstruction_mse": None}
    lines = [{"stage": "joint", "epoch": 0, "loss/nll": 1.0}]
    path = folders.run(evaluation=evaluation, metrics=lines, pictures=False)
    text = page(render(path)).text
    assert "whatwhere predict" in text
    assert not any(f"whatwhere {name}" in text for name in ("outliers", "complete", "reconstruct"))


def test_images_worth_labelling_come_with_the_file_and_the_command(folders, page):
    path = folders.practitioner()
    text = page(render(path)).text
    assert "unlabeled/23.png 4 41.0 % 9" in text
    assert f"Move each of them ({path}/label-next.csv lists them) into the folder" in text
    assert f"--from {path} --labels all" in text
    (path / "label-next.csv").unlink()
    text = page(render(path)).text
    assert "unlabeled/23.png" in text
    assert "label-next.csv" not in text


def test_labels_that_came_from_a_file_are_added_to_that_file(folders, page):
    config = folders.folder_config()
    config["job"]["label_file"] = "my labels.csv"
    path = folders.run(config=config, metrics=[], pictures=False)
    (path / "label-next.csv").write_text("file,label\n")
    text = page(render(path)).text
    assert "add its rows to my labels.csv, and train on" in text
    assert "--labels 'my labels.csv'" in text


@pytest.mark.parametrize("value", [None, ..., 7, "x", [], [None], {}, {"a": None}])
def test_new_parts_may_be_missing_or_odd(folders, page, value):
    def put(target, key):
        if value is ...:
            target.pop(key, None)
        else:
            target[key] = value

    config, evaluation = folders.folder_config(), folders.evaluation()
    evaluation |= {"balanced_error": 12.5, "calibration": folders.calibration()}
    for key in ("chosen", "start", "job"):
        put(config, key)
    for key in ("n_skipped", "skipped", "labels_by_class"):
        put(config["data"], key)
    for key in ("balanced_error", "calibration"):
        put(evaluation, key)
    put(config["params"], "class_weight")
    path = folders.run(config=config, metrics=[], evaluation=evaluation, pictures=False)
    assert page(render(path)).faults == []


def test_the_first_gradient_by_layer_is_drawn_where_it_was_measured(folders, page):
    records = folders.metrics(folders.config()["stages"])
    assert "first gradient of" not in page(render(folders.run("without", metrics=records))).text
    sizes = {"gradient/layer1": 1e-6, "gradient/layer2": 1e-3, "gradient/classes": 0.2}
    records[0] |= sizes
    html = render(folders.run("with", metrics=records))
    assert "lowest layer 1e-06, topmost 0.2" in page(html).text
    assert "vanishes" in html


def test_a_run_that_says_it_cannot_reconstruct_is_not_asked_to(folders, page):
    for can in (True, False):
        config = folders.config() | {"reconstructs": can}
        html = render(folders.run(f"can {can}", config=config))
        assert ("whatwhere reconstruct" in page(html).text) == can


def test_a_run_that_undoes_noise_is_offered_for_that(folders, page):
    config = folders.config() | {"undoes": "masking: 0.3 of the pixels set to 0"}
    assert "whatwhere denoise" in page(render(folders.run(config=config))).text


def test_a_run_that_was_solved_in_one_pass_has_no_curve_and_says_why(folders, page):
    record = {"stage": "moments", "epoch": 0, "seconds": 1.0, "total_variance": 52.7}
    told = page(render(folders.run("solved", metrics=[record]))).text
    assert "solved in one pass" in told
    assert "No epoch has been recorded" in page(render(folders.run("none", metrics=[]))).text


HOW = "log Z = 612.77 (annealed importance sampling); ±3 standard errors 612.54 to 612.96"


def likely(folders, ends, how=HOW):
    told = {"error": None, "accuracy": None, "confusion": None, "floors": None}
    found = {"log_likelihood": -95.26, "log_likelihood_how": how, "log_partition": ends}
    return folders.evaluation() | told | found


@pytest.mark.parametrize(
    ("ends", "how", "note"),
    [
        (
            [612.77, 612.54, 612.96, 612.77],
            HOW,
            "nats an image; log Z is estimated, ±3 standard errors of it: −95.5 to −95.0",
        ),
        (
            [612.77, None, 612.96, None],
            HOW + "; a lower bound",
            "log Z is hardly known, and likely larger: the likelihood likely lower; a lower bound",
        ),
        ([612.77, 612.77, 612.77, None], "log Z = 612.77 (exact)", "an image; log Z is exact"),
        (None, "odd", "−95.3 nats an image labels"),
        ("odd", "odd", "−95.3 nats an image labels"),
    ],
)
def test_the_log_likelihood_stands_on_top_with_how_far_it_is_to_be_trusted(
    folders, page, ends, how, note
):
    evaluation = likely(folders, ends, how)
    text = page(render(folders.run(evaluation=evaluation, pictures=False))).text
    assert note in text
    assert "log-likelihood −95.3" in text
    assert f"how that was found {how}" in text
    assert "−95.3 nats is the mean logarithm of that over the test images" in text


def test_a_gap_that_grows_is_said_to_mean_over_fitting(folders, page):
    lines = [
        line | {"validation/free_energy": -300.0 - k, "validation/free_energy_gap": 0.1 + k}
        for k, line in enumerate(folders.metrics([folders.stage("likelihood", 4)]))
    ]
    text = page(render(folders.run(metrics=lines, pictures=False))).text
    assert (
        "validation: free energy gap 0.1 → 3.1 nats above training images; growing says "
        "over-fitting"
    ) in text
    assert "validation: free energy -300 → -303 nats; log Z moves too" in text


def test_terms_that_are_no_part_of_a_loss_are_shown_and_told_apart(folders, page):
    lines = [
        {"stage": "likelihood", "epoch": k, "likelihood/gap": 9.0 - 3 * k, "likelihood/active": 0.5}
        for k in range(4)
    ]
    stages = [folders.stage("likelihood", 4)]
    config = folders.config() | {"stages": stages}
    text = page(render(folders.run(config=config, metrics=lines, pictures=False))).text
    assert (
        "likelihood: gap 9 → 0 nats from the energy of its own states to that of images; "
        "0 where they fit"
    ) in text
    assert "likelihood: active 0.5 → 0.5 of the hidden units are on, on average" in text
    assert "the loss is the sum" not in text


def test_a_run_that_draws_images_is_offered_for_that(folders, page):
    path = folders.run(evaluation=folders.evaluation() | {"reconstruction_mse": None})
    assert "whatwhere sample" not in page(render(path)).text
    picture = (path / "panels" / "filters.png").read_bytes()
    (path / "panels" / "samples.png").write_bytes(picture)
    text = page(render(path)).text
    assert f"whatwhere sample {path} --out samples.png" in text
    assert f"whatwhere complete {path} mnist --mask left --out completed.png" in text
