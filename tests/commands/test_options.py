"""Options: each field of a spec has a flag, or a stated reason for none."""

import re
from typing import Literal, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

from landscribe.commands import app as cli
from landscribe.commands import options
from landscribe.commands.options import help_of, spec_of, with_settings
from landscribe.data.batches.augment_spec import AugmentSpec
from landscribe.nn.losses import LOSSES
from landscribe.spec import NoFlag, keywords_of
from landscribe.training.spec import TrainSpec

COMMANDS = typer.main.get_command(cli.app).commands
ALL_CHOICES = [
    kind
    for section in options._SECTIONS
    for field in spec_of(section).model_fields.values()
    for kind in options._kinds(field.annotation)
    if get_origin(kind) is Literal
]
FIELDS = [(section, name) for section in options._SECTIONS for name in spec_of(section).model_fields]


def parameters_of(verb: str) -> list:
    command = COMMANDS[verb]
    with command.context_class(command, info_name=verb) as context:
        return command.get_params(context)


def flags_of(verb: str) -> set[str]:
    """All flags of a verb."""
    return {flag for parameter in parameters_of(verb) for flag in parameter.opts}


MADE_FROM_FIELDS = {parameter.name for verb in COMMANDS for parameter in parameters_of(verb)}


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_each_field_has_a_flag_or_a_reason_for_none(section, name):
    reasons = [mark.reason for mark in spec_of(section).model_fields[name].metadata if isinstance(mark, NoFlag)]
    assert bool(reasons) != (f"{section}__{name}" in MADE_FROM_FIELDS)
    assert all(reasons)


PROMISED = {
    "run": "--image --labels --label-field --out --seed --json",
    "check": "--image --labels --label-field --json",
    "chip": "--image --labels --label-field --size --stride --mode --out -o --seed --dask --json",
    "train": "--architecture --encoder --weights --epochs --steps --minutes --seed --out -o --json",
    "predict": "--out -o --probabilities --engine --dask --json",
    "assess": "--reference --label-field --objects --score-field --tolerance --out -o --json",
}  # fmt: skip


@pytest.mark.parametrize("verb", PROMISED)
def test_promised_flags_keep_their_names(verb):
    assert set(PROMISED[verb].split()) <= flags_of(verb)


@pytest.mark.parametrize(
    ("section", "name", "text"),
    [
        ("train", "patience", "Early stopping: epochs without improvement. [default: no early stopping]"),
        ("train", "weight_decay", "Weight decay of the optimizer. [default: 0.01]"),
        ("split", "val", "Validation fraction. The best epoch is chosen on the validation chips. [default: 0.15]"),
        ("train", "optimizer", "Optimizer: AdamW, or SGD with momentum 0.9. [default: adamw]"),
        ("sample", "size", "Sampling units to draw. [default: from --standard-error or --half-width]"),
        ("chips", "virtual", "Write only the index, and read windows from the scenes."),
    ],
)  # fmt: skip
def test_help_is_the_docstring_with_flags_for_names_and_the_default(section, name, text):
    assert help_of(spec_of(section).model_fields[name]) == text


def test_help_shows_choices_and_panels(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = CliRunner().invoke(cli.app, ["run", "--help-all"]).output
    assert re.search(r"--optimizer +\S*adamw\|sgd", text)
    assert re.search(r"--tile +<int\|auto>", text)
    assert all(
        f"─ {panel} ─" in text for panel in ("Scenes", "Chips", "Split", "Augmentation", "Training", "Prediction")
    )


def test_describe_takes_the_presets_of_a_training_and_shows_one_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = CliRunner().invoke(cli.app, ["describe", "--help"]).output
    assert f"<{'|'.join(keywords_of(AugmentSpec.model_fields['preset'].annotation))}>" in text
    assert re.findall(r"\[default: (\w+)\]", text) == ["none", "0"]


def settings_from(cls: type, *arguments: str) -> dict:
    """The settings that a command of that class receives."""
    app, received = typer.Typer(), {}

    @app.command(cls=cls)
    def command(ctx: typer.Context) -> None:
        received.update(ctx.obj)

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return received


def test_settings_arrive_by_section():
    arguments = ("--size", "64", "--batch", "2", "--option", "depth=3", "--option", "activation=swish", "--no-stack")
    assert settings_from(cli.RunCommand, *arguments) == {
        "chips": {"size": 64},
        "train": {"batch": "2", "options": ["depth=3", "activation=swish"]},
        "scenes": {"stack": False},
    }


def test_resample_of_a_run_serves_stacked_files_and_maps():
    settings = settings_from(cli.RunCommand, "--resample")
    assert settings == {section: {"resample": True} for section in ("scenes", "predict")}


def test_dask_of_a_run_serves_chips_map_and_polygons():
    settings = settings_from(cli.RunCommand, "--dask", "auto")
    assert settings == {section: {"dask": "auto"} for section in ("chips", "predict", "vectorize")}


def test_a_flag_of_two_sections_needs_a_decision():
    with pytest.raises(ValueError, match="--batch is a flag of train and of predict"):
        options._parameters(("train", "predict"), None, {}, {}, in_run=False)


def test_a_new_field_becomes_a_flag_without_another_line(monkeypatch):
    class Grown(TrainSpec):
        warmup: int | None = None
        """Steps of warm-up."""

    monkeypatch.setattr(options, "spec_of", lambda section: Grown)
    assert settings_from(with_settings("train"), "--warmup", "5") == {"train": {"warmup": 5}}


def test_choices_complete_in_a_shell(monkeypatch, capsys):
    monkeypatch.setenv("COMP_WORDS", "landscribe train --optimizer ")
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setenv("_LANDSCRIBE_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit):
        typer.main.get_command(cli.app).main([], prog_name="landscribe")
    assert capsys.readouterr().out.split() == ["adamw", "sgd"]


def test_usual_words_arrive_as_they_are_typed():
    typed = ("--format", "jpeg", "--val", "20%", "--lr", "0.1", "--backbone", "resnet34", "--optimizer", "AdamW")
    assert settings_from(cli.RunCommand, *typed) == {
        "chips": {"format": "jpeg"},
        "split": {"val": "20%"},
        "train": {"learning_rate": "0.1", "encoder": "resnet34", "optimizer": "adamw"},
    }


def test_choices_that_also_take_other_words_are_shown(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert re.search(r"--format +<tif\|png\|jpg>", CliRunner().invoke(cli.app, ["chip", "--help"]).output)


def help_text(verb: str, *flags: str, monkeypatch, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(cli.app, [verb, *(flags or ["--help"])])
    assert result.exit_code == 0
    return result.output


def test_choices_of_words_are_explained(monkeypatch):
    text = " ".join(help_text("train", monkeypatch=monkeypatch, columns=250).split())
    for word in ("windows: windows at random", "percentiles: the 2nd", "light: flips", "one_cycle: warm-up"):
        assert word in text


def test_the_help_of_the_loss_lists_every_loss():
    listed = help_of(spec_of("train").model_fields["loss"]).partition("Losses: ")[2].partition(". [")[0]
    assert set(listed.split(", ")) == set(LOSSES)


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_help_has_flags_in_place_of_names_of_fields(verb, monkeypatch):
    flags = ["--help-all"] if verb in ("run", "check") else ["--help"]
    text = help_text(verb, *flags, monkeypatch=monkeypatch, columns=250)
    words = set(re.findall(r"[a-z]+(?:_[a-z]+)+", text))
    assert words & set(options._flag_by_field()) == set()


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_no_name_of_a_flag_is_cut_at_80_columns(verb, monkeypatch):
    text = help_text(verb, *(["--help-all"] if verb in ("run", "check") else []), monkeypatch=monkeypatch)
    assert "…" not in text


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_no_choice_is_broken_within_a_word_at_80_columns(verb, monkeypatch):
    words = {word for kind in ALL_CHOICES for word in get_args(kind)}
    text = help_text(verb, *(["--help-all"] if verb in ("run", "check") else []), monkeypatch=monkeypatch)
    ends = re.findall(r"[<| ]([a-z0-9_-]+) +.*\n│ +([a-z0-9_-]+)[|>]", text)
    assert [(first, rest) for first, rest in ends if first + rest in words] == []


def test_a_run_shows_its_frequent_settings_and_on_request_all(monkeypatch):
    short, whole = (help_text("run", flag, monkeypatch=monkeypatch) for flag in ("--help", "--help-all"))
    assert "--label-field" in short
    assert "--gradient-clip" not in short
    assert all(flag in whole for flag in ("--label-field", "--gradient-clip", "--image-area"))
    assert len(short.splitlines()) < len(whole.splitlines()) / 3
    assert settings_from(cli.RunCommand, "--gradient-clip", "2") == {"train": {"gradient_clip": 2}}


def test_frequent_settings_are_fields_of_their_sections():
    assert set(cli.FREQUENT) <= {name for _, name in FIELDS}


def test_an_all_touched_without_a_value_is_for_all_classes():
    assert settings_from(cli.RunCommand, "--all-touched", "--sparse") == {
        "scenes": {"all_touched": "all", "sparse": True}
    }


def test_the_column_of_a_reference_has_the_names_of_assess_and_run(monkeypatch):
    assert "--reference-field" in flags_of("assess") & flags_of("run")
    text = help_text("assess", monkeypatch=monkeypatch)
    assert "─ Reference ─" in text
    assert "─ Scenes ─" not in text
